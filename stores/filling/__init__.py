"""Encoding into a store: the batch plan, its tasks, and Dask."""
