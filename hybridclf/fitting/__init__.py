"""Fitting both tiers on labelled images, and the fusion on images that neither has seen."""
