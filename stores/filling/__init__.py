"""Encoding into a store: the batch plan, its tasks, and where they run."""
