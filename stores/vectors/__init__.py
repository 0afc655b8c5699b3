"""Aligned vectors and the Parquet file that holds them."""
