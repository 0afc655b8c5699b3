"""Queries with their ends cut off at random, so that length and missing ends give nothing away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from protalign.core.arrays import Float32
from protalign.core.protein import Backbone, Chain, Modality, Structure
from protalign.encoders.recorded import RecordedEncoders
from protalign.evaluation.test_set import Chains, Side
from protalign.heads.inputs import PairInputs, means_of
from protalign.heads.model import Model
from protalign.stores import Entries

#: Most that each end may lose: something must be left between them.
MAX_CROP = 0.5
#: Items embedded at once.
_AT_ONCE = 64


def cropped(
    side: Side,
    modality: Modality,
    entries: Entries,
    model: Model,
    encoders: RecordedEncoders,
    crop: float,
    rng: np.random.Generator,
) -> Side:
    """A side's items cut, embedded anew and pooled.

    Each end of each chain loses its own random part, evenly between nothing and ``crop`` of the
    chain's residues; of a structure those residues that have a complete backbone count. A
    structure's other chains, which the encoder sees beside it, stay whole.

    ``crop`` is between 0 and ``MAX_CROP``.
    """
    items: list[Any] = []
    chains: list[Chains] = []
    for entry_id in side.ids:
        if modality == "sequence":
            cut = tuple(_cut(chain, crop, rng) for chain in entries.store.sequence(entry_id))
            items.append(cut)
            chains.append(cut)
        else:
            structure = _cut_structure(entries, entry_id, crop, rng)
            items.append(structure)
            chains.append(_letters(structure))
    rows: list[Float32] = []
    for start in range(0, len(items), _AT_ONCE):
        rows += encoders.encode(modality, items[start : start + _AT_ONCE])
    inputs = PairInputs([(r, None) if modality == "sequence" else (None, r) for r in rows])
    return replace(
        side,
        vectors=model.vectors(inputs, modality),
        means=means_of(inputs, modality, np.arange(len(inputs))),
        lengths=inputs.lengths(modality),
        chains=chains,
    )


def _bounds(length: int, crop: float, rng: np.random.Generator) -> slice:
    """What is left of ``length`` residues; at least one is."""
    first, last = rng.integers(0, int(crop * length), size=2, endpoint=True)
    return slice(int(first), length - int(last))


def _cut(chain: str, crop: float, rng: np.random.Generator) -> str:
    return chain[_bounds(len(chain), crop, rng)]


def _cut_structure(
    entries: Entries, entry_id: str, crop: float, rng: np.random.Generator
) -> Structure:
    """The entry's complex, the entry's own chains cut, and only they kept."""
    store = entries.store
    structure = store.structure(entry_id)
    first, count = store.log.chains(int(store.log.rows_of([entry_id])[0]))
    own = structure.kept[first : first + count]
    chains = list(structure.chains)
    for index in own:
        chains[index] = _cut_chain(chains[index], crop, rng)
    return Structure(tuple(chains), own)


def _cut_chain(chain: Chain, crop: float, rng: np.random.Generator) -> Chain:
    rows = chain.structure_rows
    if len(rows) == 0 or chain.backbone is None:
        return chain
    left = rows[_bounds(len(rows), crop, rng)]
    kept = slice(int(left[0]), int(left[-1]) + 1)
    return replace(
        chain,
        sequence=chain.sequence[kept],
        residue_numbers=chain.residue_numbers[kept],
        insertion_codes=chain.insertion_codes[kept],
        observed=chain.observed[kept],
        backbone=Backbone(chain.backbone.coordinates[kept]),
    )


def _letters(structure: Structure) -> Chains:
    """The letters of the residues that have a row."""
    return tuple(_observed(chain) for chain in structure.kept_chains)


def _observed(chain: Chain) -> str:
    rows: Sequence[int] = chain.structure_rows.tolist()
    return "".join(chain.sequence[row] for row in rows)
