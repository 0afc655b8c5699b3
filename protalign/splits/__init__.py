"""Splits: disjoint parts of a store's entries, and the similarity of sequences."""

from protalign.splits.clusters import cluster as cluster
from protalign.splits.ids import read_ids as read_ids
from protalign.splits.make import by_cluster as by_cluster
from protalign.splits.make import by_column as by_column
from protalign.splits.make import by_pdbbind as by_pdbbind
from protalign.splits.pdbbind import read_index as read_index
from protalign.splits.split import Split as Split
from protalign.splits.split import read_split as read_split
from protalign.splits.split import write_split as write_split
