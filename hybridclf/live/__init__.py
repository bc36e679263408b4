"""Live re-ranking inside a Python process: requests, deadlines and isolation of failures."""
