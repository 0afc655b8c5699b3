"""ProtAlign."""
