"""Advice that several errors of damaged stores share."""

#: A store cannot mend itself: what it holds was computed from files that it does not have.
RESTORE = "restore it from a copy, or remove the store and embed its files again"
