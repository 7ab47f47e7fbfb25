"""What holds for all tests."""

import signal

# A shell starts background jobs with SIGINT ignored, and every process they start inherits that.
# Tests that interrupt a process must not depend on how they were started themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)
