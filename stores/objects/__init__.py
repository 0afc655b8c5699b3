"""Stores in the object storage of a cloud: each commit is one conditional request."""
