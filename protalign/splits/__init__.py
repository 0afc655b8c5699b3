"""Splits: disjoint parts of a store's entries, and the similarity of sequences."""

from protalign.splits.clusters import cluster
from protalign.splits.ids import read_ids
from protalign.splits.make import by_cluster, by_column, by_pdbbind
from protalign.splits.pdbbind import read_index
from protalign.splits.split import Split, read_split, write_split

__all__ = [
    "Split",
    "by_cluster",
    "by_column",
    "by_pdbbind",
    "cluster",
    "read_ids",
    "read_index",
    "read_split",
    "write_split",
]
