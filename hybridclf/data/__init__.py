"""Readers of images: arrays, image files, Parquet tables and labelled data sets."""
