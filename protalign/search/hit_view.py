"""The hit view: all that a page shows of one opened hit, as a JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protalign.core.annotation import Annotation
from protalign.core.protein import Chain, Modality, Protein
from protalign.reading.structure_writer import (
    ResidueKey,
    StructureText,
    backbone_text,
    fits_pdb,
)
from protalign.search.comparison import Comparison
from protalign.search.hit import Hit
from protalign.search.hit_columns import COLUMNS, values
from protalign.search.residue_rows import has_coordinates, positions
from protalign.search.superposition import Superposition

#: The name and the version of the schema of the document (docs/formats.md).
SCHEMA, SCHEMA_VERSION = "protalign hit", 1
_NO_CODE = ord(" ")


def hit_view(comparison: Comparison, query: int, hit: Hit) -> dict[str, Any]:
    """Return the document of one hit, as JSON values.

    The two are aligned and superposed now, unless the comparison keeps that. What cannot be known,
    because the search opened no store or has no residues, is None or empty.

    Parameters
    ----------
    comparison : Comparison
        What compares the hit with its query.
    query : int
        The place of the query among the search's queries.
    hit : Hit
        The hit.

    Returns
    -------
    dict
        ``query`` and ``target``: their chains with letters and residue numbers; ``hit``: the values
        of all columns; ``pairs``: aligned positions in the joined letters of all chains, from 0,
        with their log-likelihood ratio in nats; ``superposition``: the motion that puts the target
        on the query, and the fit of each target residue, 0 to 100; ``fit``: the log-likelihood
        ratio of each target residue; ``structures``: backbones as text, the target not moved, with
        its fit as B-factors.

    Examples
    --------
    >>> import numpy as np
    >>> from protalign.search import search
    >>> from protalign.stores import AlignedVectors
    >>> eye, every = np.eye(2, dtype=np.float32), np.ones(2, dtype=np.bool_)
    >>> ids = np.array(["1a30", "3ebp"], dtype=object)
    >>> hits = search("3ebp", AlignedVectors(ids, eye, eye, every, every), k=1)
    >>> view = hit_view(hits.comparison, 0, hits[0])
    >>> view["target"]["id"], view["hit"]["cosine"], view["pairs"]
    ('3ebp', 1.0, [])
    """
    asking, target = comparison.query(query), comparison.entry(hit.id)
    modality = comparison.queries.modality[query]
    alignment = comparison.alignment(query, hit)
    superposition = comparison.superposition(query, hit)
    pairs: list[tuple[int, int, float]] = []
    if alignment is not None:
        columns = alignment.alignment
        pairs = [
            (q, t, round(score, 3))
            for q, t, score in zip(
                columns.query_rows.tolist(),
                columns.target_rows.tolist(),
                columns.residue_scores.tolist(),
                strict=True,
            )
        ]
    length = 0 if target is None else len(target)
    fit: list[float | None] = [None] * length
    for _, position, score in pairs:
        fit[position] = score
    placed = _superposition(superposition, target)
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "query": _protein(
            hit.query,
            comparison.queries.lengths[query],
            modality,
            asking,
            Annotation() if asking is None else asking.annotation,
        ),
        "target": _protein(
            hit.id,
            hit.length,
            hit.against,
            target,
            Annotation(hit.description, hit.organism, hit.taxid, hit.accession),
        ),
        "hit": values(hit, query, comparison, tuple(COLUMNS)),
        "pairs": [list(pair) for pair in pairs],
        "superposition": placed,
        "fit": fit,
        "structures": _structures(asking, target, placed["fit"] if placed else fit),
    }


def _protein(
    id: str,
    length: int | None,
    modality: Modality,
    protein: Protein | None,
    annotation: Annotation,
) -> dict[str, Any]:
    return {
        "id": id,
        "length": length if protein is None else len(protein),
        "modality": modality,
        **annotation.as_dict(),
        "chains": [] if protein is None else [_chain(chain) for chain in protein.chains],
    }


def _chain(chain: Chain) -> dict[str, Any]:
    """Return a chain's letters, and its residues' numbers: None for those not observed."""
    seen = zip(chain.residue_numbers.tolist(), chain.observed.tolist(), strict=True)
    return {
        "name": chain.id,
        "letters": chain.sequence,
        "numbers": [number if observed else None for number, observed in seen],
        "codes": ["" if code == _NO_CODE else chr(code) for code in chain.insertion_codes.tolist()],
    }


def _superposition(found: Superposition | None, target: Protein | None) -> dict[str, Any] | None:
    if found is None or target is None:
        return None
    fit: list[float | None] = [None] * len(target)
    places = positions(target.chains, "structure")[found.hit_rows]
    for position, value in zip(places.tolist(), found.fit.tolist(), strict=True):
        fit[position] = round(value, 1)
    return {
        "rotation": found.rotation.ravel().tolist(),
        "translation": found.translation.tolist(),
        "qtmscore": found.score,
        "ttmscore": found.hit_score,
        "alntmscore": found.aligned_score,
        "rmsd": found.rmsd,
        "fit": fit,
    }


def _structures(
    query: Protein | None, target: Protein | None, fit: Sequence[float | None]
) -> dict[str, Any]:
    """Return the backbones of both as text of one form; None for one without coordinates."""
    sides = {"query": query, "target": target}
    known = {
        side: protein.chains
        for side, protein in sides.items()
        if protein is not None and has_coordinates(protein)
    }
    kind: StructureText = "pdb" if all(map(fits_pdb, known.values())) else "mmcif"
    b_factors = {"query": {}, "target": {} if target is None else _b_factors(target.chains, fit)}
    texts = {
        side: backbone_text(known[side], b_factors[side], kind, side) if side in known else None
        for side in sides
    }
    return {**texts, "format": kind}


def _b_factors(chains: Sequence[Chain], fit: Sequence[float | None]) -> Mapping[ResidueKey, float]:
    """Return the fit of each residue that has one, by its key in a structure file."""
    keys = [
        (chain.id, number, chr(code))
        for chain in chains
        for number, code in zip(
            chain.residue_numbers.tolist(), chain.insertion_codes.tolist(), strict=True
        )
    ]
    return {key: value for key, value in zip(keys, fit, strict=True) if value is not None}
