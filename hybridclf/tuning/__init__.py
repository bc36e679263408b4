"""Tuning of a pretrained denoiser on labelled images: `hybridclf.tune`."""
