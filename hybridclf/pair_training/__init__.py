"""Training of a pair on labelled images: both networks, their fusion, checkpoints and the log."""
