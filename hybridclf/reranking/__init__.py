"""Re-ranking in numpy: which evaluations come next, how they fill batches, and what they come to."""
