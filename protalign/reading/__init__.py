"""Reading of PDB, mmCIF, BinaryCIF and FASTA files, each also gzipped, of folders and archives."""

from protalign.reading.fasta import read_fasta
from protalign.reading.options import ReadOptions
from protalign.reading.scan import SourceResult, read_source, read_sources
from protalign.reading.sources import SourceFile, find_sources, of_shard

__all__ = [
    "ReadOptions",
    "SourceFile",
    "SourceResult",
    "find_sources",
    "of_shard",
    "read_fasta",
    "read_source",
    "read_sources",
]
