"""How many residue rows a search reads at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from protalign.core.protein import Modality
from protalign.core.ragged import Ragged
from protalign.residues.proteins import PackedRows
from protalign.search.rerank import StoredResidues


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that gets the entries and the residues of each read."""
    reads: list[tuple[int, int]] = []
    packed, local = StoredResidues.packed, StoredResidues.local

    def counted_packed(
        residues: StoredResidues, modality: Modality, ids: Sequence[str], **asked: bool
    ) -> PackedRows:
        rows = packed(residues, modality, ids, **asked)
        reads.append((len(ids), len(rows.local.values)))
        return rows

    def counted_local(residues: StoredResidues, modality: Modality, ids: Sequence[str]) -> Ragged:
        rows = local(residues, modality, ids)
        reads.append((len(ids), len(rows.values)))
        return rows

    monkeypatch.setattr(StoredResidues, "packed", counted_packed)
    monkeypatch.setattr(StoredResidues, "local", counted_local)
    return reads
