"""Does re-ranking pay? Both tiers recorded on labelled images once, and every method replayed from it."""
