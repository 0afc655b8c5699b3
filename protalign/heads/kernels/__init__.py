"""Batches of residue rows without padding, and attention sums over them."""
