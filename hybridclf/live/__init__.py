"""Re-ranking as a live service in a Python process: requests, deadlines and isolated failures."""
