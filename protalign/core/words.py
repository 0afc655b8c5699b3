"""The words that options take, each set declared once, and numbers with their nouns.

Nothing heavy is imported here, so that ``protalign --help`` can show the words without loading
numpy or torch.
"""

from __future__ import annotations

from typing import Literal

#: The two views of a protein.
Modality = Literal["sequence", "structure"]

#: What one entry of a store is.
Per = Literal["protein", "chain"]
#: The residues of a structure file's sequences.
SequenceSource = Literal["observed", "deposited"]
#: Number format of the embeddings in a store.
StorageDtype = Literal["float16", "float32"]

#: Contrastive losses.
Loss = Literal["clip", "siglip"]
#: The modality of the vectors that a transformer returns; "both" are side by side.
Output = Literal["sequence", "structure", "both"]
#: The kinds of vectors that are exported: aligned ones, and means of the residues' embeddings.
Feature = Literal["aligned", "mean"]
#: The kinds of vectors that a transformer looks up; "both" are side by side.
Features = Literal["aligned", "mean", "both"]

#: The parts of a split.
Part = Literal["train", "validation", "test"]
#: The validation part of a split of PDBbind.
Validation = Literal["refined", "random", "cluster"]
#: Programs that cluster sequences.
ClusterMethod = Literal["auto", "mmseqs", "kmer"]

#: The alignments of residues: the best part with gaps, or the best diagonal of each chain.
AlignMode = Literal["local", "global"]
#: The forms in which alignments are printed.
AlignFormat = Literal["text", "m8", "a3m", "fasta", "json"]
#: The forms in which notes and failures are printed.
NotesFormat = Literal["text", "tsv", "csv"]
#: The entries that a second stage compares with a query: so many candidates, or all of them.
Rerank = int | Literal["all"]
#: The vectors that a query is compared with; "other" are those of the other modality.
Against = Literal["other", "sequence", "structure"]


def counted(number: float, noun: str, plural: str = "") -> str:
    """Return a number with its noun, in the plural unless the number is 1.

    Examples
    --------
    >>> counted(1, "file"), counted(2400, "file"), counted(0, "entry", "entries")
    ('1 file', '2,400 files', '0 entries')
    """
    return f"{number:,.0f} {noun if number == 1 else plural or noun + 's'}"
