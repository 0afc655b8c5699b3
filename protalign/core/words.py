"""The words that an option of ours takes, each set of them once.

They are apart from what they mean, and nothing is imported here, so that ``protalign --help``
shows them without loading numpy or torch.
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

#: The parts of a split.
Part = Literal["train", "validation", "test"]
#: The validation part of a split of PDBbind.
Validation = Literal["refined", "random", "cluster"]
#: Programs that cluster sequences.
ClusterMethod = Literal["auto", "mmseqs", "kmer"]

#: The vectors that a query is compared with; "other" are those of the other modality.
Against = Literal["other", "sequence", "structure"]
