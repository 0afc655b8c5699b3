"""Reading of PDB, mmCIF, BinaryCIF and FASTA files, each also gzipped, and folders of them."""

from protalign.reading.fasta import read_fasta, read_fasta_text
from protalign.reading.options import ReadOptions
from protalign.reading.scan import SourceResult, read_content, read_source, read_sources
from protalign.reading.sources import SourceFile, find_sources

__all__ = [
    "ReadOptions",
    "SourceFile",
    "SourceResult",
    "find_sources",
    "read_content",
    "read_fasta",
    "read_fasta_text",
    "read_source",
    "read_sources",
]
