"""vLLM: its engine in this process, stepped one scheduler step at a time."""
