"""Parts of a saved model: labels as JSON, tier 1 as arrays or by skops, and checks of what is read."""
