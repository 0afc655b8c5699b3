"""Which proteins resemble each other, and disjoint parts of them."""
