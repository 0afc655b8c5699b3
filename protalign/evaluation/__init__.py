"""Vectors to retrieval figures with intervals."""
