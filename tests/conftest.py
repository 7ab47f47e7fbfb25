"""What holds for all tests."""

import signal

from hypothesis import settings

# A shell starts background jobs with SIGINT ignored, and every process they start inherits that.
# Tests that interrupt a process must not depend on how they were started themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is a matter of what else the machine does.
settings.register_profile("whatever the machine does", deadline=None)
settings.load_profile("whatever the machine does")
