"""Small helpers of all folders: checks of numbers, names of classes, progress bars, install commands."""
