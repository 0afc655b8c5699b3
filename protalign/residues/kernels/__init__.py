"""Scores of every query against every target, from products of their residue rows."""
