"""Several stores of the same encoders, read as one."""
