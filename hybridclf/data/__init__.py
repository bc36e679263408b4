"""Reading images: arrays, image files, Parquet tables, and data sets with labels."""
