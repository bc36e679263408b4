"""Helpers that all folders share: checks of numbers, class names, progress bars, install commands."""
