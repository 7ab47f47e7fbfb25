"""The Ray cluster that work goes to: found or started, and left as it was."""
