"""Saving of a model's parts: labels as JSON, tier 1 as arrays or by skops, and checks of untrusted files."""
