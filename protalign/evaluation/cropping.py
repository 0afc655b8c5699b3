"""Queries with random ends cut off, so that length and missing ends give nothing away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import Backbone, Chain, Modality, Structure
from protalign.core.spread import Here, Spread, checked
from protalign.core.threads import OnSameCores
from protalign.encoders.recorded import RecordedEncoders
from protalign.evaluation.test_set import Chains, RetrievalItems, chain_rows
from protalign.heads.inputs import PairInputs, means_of
from protalign.heads.model import Model
from protalign.residues.proteins import PackedRows
from protalign.search.residue_rows import positions
from protalign.stores import Entries

#: The largest share that each end may lose: a residue must remain between them.
MAX_CROP = 0.5
#: Proteins embedded at once.
_PROTEINS_AT_ONCE = 64


def cropped(
    items: RetrievalItems,
    modality: Modality,
    entries: Entries,
    model: Model,
    encoders: RecordedEncoders,
    crop: float,
    rng: np.random.Generator,
    spread: Spread | None = None,
) -> RetrievalItems:
    """Cut items, embed them again and pool them.

    Each end of each chain loses its own random part, evenly distributed between nothing and
    ``crop`` of the chain's residues; of a structure, the residues with a complete backbone count. A
    structure's other chains, which its encoder sees as well, stay whole.

    Parameters
    ----------
    items : RetrievalItems
        The items of one modality.
    modality : "sequence" or "structure"
        Their modality.
    entries : EmbeddingStore or StoreView
        The entries that they belong to.
    model : Model
        Pools the new embeddings.
    encoders : RecordedEncoders
        Embed the cut proteins.
    crop : float
        The largest share of a chain that each end loses, above 0 and below ``MAX_CROP``.
    rng : Generator
        The source of the cuts.
    spread : Spread, optional
        Embeds the cut proteins, some at a time. Default: this process.
    """
    proteins: list[Any] = []
    chains: list[Chains] = []
    places: list[Int64] = []
    for entry_id in items.ids:
        if modality == "sequence":
            cut = tuple(_cut(chain, crop, rng) for chain in entries.store.sequence(entry_id))
            proteins.append(cut)
            chains.append(cut)
            places.append(np.arange(sum(map(len, cut))))
        else:
            structure = _cut_structure(entries, entry_id, crop, rng)
            proteins.append(structure)
            chains.append(tuple(map(_letters_with_rows, structure.kept_chains)))
            places.append(positions(structure.kept_chains, modality))
    encode = OnSameCores(partial(encoders.encode, modality))
    starts = range(0, len(proteins), _PROTEINS_AT_ONCE)
    some = (proteins[start : start + _PROTEINS_AT_ONCE] for start in starts)
    encoded = (spread or Here()).map(encode, some)
    lengths = [sum(map(len, each)) for each in chains]
    rows: list[Float32] = [
        checked(each, (length, model.dims[modality]), np.float32)
        for each, length in zip(chain.from_iterable(encoded), lengths, strict=True)
    ]
    inputs = PairInputs([(r, None) if modality == "sequence" else (None, r) for r in rows])
    stage = model.residue_stage if items.residues is not None else None
    return replace(
        items,
        vectors=model.vectors(inputs, modality),
        means=means_of(inputs, modality, np.arange(len(inputs))),
        lengths=inputs.lengths(modality),
        chains=chains,
        residues=(
            None
            if stage is None
            else PackedRows.of(
                [
                    stage.protein_rows(modality, each, chain_rows(cut))
                    for each, cut in zip(rows, chains, strict=True)
                ]
            ).placed(places)
        ),
    )


def _bounds(length: int, crop: float, rng: np.random.Generator) -> slice:
    """Return the slice of ``length`` residues that remains, at least one."""
    first, last = rng.integers(0, int(crop * length), size=2, endpoint=True)
    return slice(int(first), length - int(last))


def _cut(chain: str, crop: float, rng: np.random.Generator) -> str:
    return chain[_bounds(len(chain), crop, rng)]


def _cut_structure(
    entries: Entries, entry_id: str, crop: float, rng: np.random.Generator
) -> Structure:
    """Return the entry's complex with the entry's own chains cut, and only them kept."""
    store = entries.store
    structure = store.structure(entry_id)
    first, count = store.log.chains(int(store.log.rows_of([entry_id])[0]))
    kept = structure.kept[first : first + count]
    chains = list(structure.chains)
    for index in kept:
        chains[index] = _cut_chain(chains[index], crop, rng)
    return Structure(tuple(chains), kept)


def _cut_chain(chain: Chain, crop: float, rng: np.random.Generator) -> Chain:
    rows = chain.structure_rows
    if len(rows) == 0 or chain.backbone is None:
        return chain
    remaining = rows[_bounds(len(rows), crop, rng)]
    kept = slice(int(remaining[0]), int(remaining[-1]) + 1)
    return replace(
        chain,
        sequence=chain.sequence[kept],
        residue_numbers=chain.residue_numbers[kept],
        insertion_codes=chain.insertion_codes[kept],
        observed=chain.observed[kept],
        backbone=Backbone(chain.backbone.coordinates[kept]),
    )


def _letters_with_rows(chain: Chain) -> str:
    """Return the sequence of the residues that have a row of embedding."""
    rows: Sequence[int] = chain.structure_rows.tolist()
    return "".join(chain.sequence[row] for row in rows)
