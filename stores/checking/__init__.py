"""Verification of a store against its checksums and its index."""
