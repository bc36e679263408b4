"""Demonstration on handwritten digits: every method on the same weights, as a report and pictures."""
