"""SGLang: its engine with its own event loop and scheduler process."""
