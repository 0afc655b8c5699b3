"""Reading of structure and sequence files, of folders, archives, databases, lists and addresses."""

from protalign.reading.fasta import read_fasta, read_fasta_text
from protalign.reading.given import Given, find_given, read_list
from protalign.reading.options import ReadOptions
from protalign.reading.scan import read_source, read_sources
from protalign.reading.single import SourceResult, read_content
from protalign.reading.sources import SourceFile, find_sources, of_shard

__all__ = [
    "Given",
    "ReadOptions",
    "SourceFile",
    "SourceResult",
    "find_given",
    "find_sources",
    "of_shard",
    "read_content",
    "read_fasta",
    "read_fasta_text",
    "read_list",
    "read_source",
    "read_sources",
]
