"""Saving of a model's parts: labels, calibration, denoiser, and tier 1; and checks of untrusted files."""
