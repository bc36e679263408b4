"""Asking the denoiser: errors under an objective, their weights, and batches that fit the device."""
