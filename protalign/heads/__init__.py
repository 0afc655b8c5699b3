"""Residue rows to one vector per protein: pooling heads, losses, training, the model."""
