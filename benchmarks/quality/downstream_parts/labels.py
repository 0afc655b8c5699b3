"""The labels: folds of SCOPe, and effects of mutations on stability, with one sign."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from protalign.stores import EmbeddingStore

COLUMNS = ["wild", "mutant", "position", "target", "structure", "mutant_structure"]


@dataclass(frozen=True)
class Pool:
    """The store of proteins with structures, and their ids by PDB entry and chain.

    Attributes
    ----------
    manifest : rows of the store's entries; ``entry`` is the store's id.
    by_chain : (PDB entry in lower case, chain) -> the store's id.
    """

    store: EmbeddingStore
    manifest: pd.DataFrame
    by_chain: dict[tuple[str, str], str]

    @classmethod
    def of(cls, store: EmbeddingStore, manifest: Path) -> Pool:
        """Read the manifest and keep the proteins that the store holds."""
        rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
        rows["entry"] = rows["id"].str.removeprefix("casf_")
        rows = rows[rows["entry"].isin(set(store.ids))].reset_index(drop=True)
        places = zip(rows["pdb"].str.lower(), rows["chains"], strict=True)
        return cls(store, rows, dict(zip(places, rows["entry"], strict=True)))


def geostab(path: Path, pool: Pool) -> pd.DataFrame:
    """Read a table of GeoStab: kcal/mol or °C, negative if the mutation destabilises.

    Measurements of one mutation under several conditions are averaged.
    """
    raw = pd.read_csv(path)
    target = "ddG" if "ddG" in raw else "dTm"
    names = raw["name"].str.split("_")
    table = pd.DataFrame(
        {
            "wild": raw["wt_seq"],
            "mutant": raw["mut_seq"],
            "position": [_substituted(w, m) for w, m in zip(raw.wt_seq, raw.mut_seq, strict=True)],
            "target": raw[target],
            "structure": [pool.by_chain.get((n[1].lower(), n[2]), "") for n in names],
            "name": ["_".join(n[1:4]) for n in names],
        }
    )
    table = _averaged(table)
    table["mutant_structure"] = table["structure"]  # mutants have no structure
    return table


def ssym(path: Path, measured: pd.DataFrame, pool: Pool) -> pd.DataFrame:
    """Read Ssym's mutations that S8754 has a ddG of, with the structures of both sides.

    The table has no measured values: those of S8754 for the same entry and mutation are taken.
    """
    raw = pd.read_csv(path)
    known = measured.set_index("name")
    rows = []
    for direct, inverse in zip(raw["mut_info_dir"], raw["mut_info_inv"], strict=True):
        name = direct.removeprefix("rcsb_")
        if name not in known.index:
            continue
        first = known.loc[[name]].iloc[0]
        _, entry, chain, _ = inverse.split("_")
        other = pool.by_chain.get((entry.lower(), chain), "")
        rows.append(
            {
                **{column: first[column] for column in COLUMNS[:-1]},
                "target": known.loc[[name], "target"].mean(),
                "mutant_structure": other,
            }
        )
    table = pd.DataFrame(rows)
    return table[(table.structure != "") & (table.mutant_structure != "")].reset_index(drop=True)


def protherm(path: Path, pool: Pool) -> pd.DataFrame:
    """Read Kortemme's curated ProTherm: single mutations in the pool's structures, kcal/mol.

    Sequences are the residues in the structures; the sign is reversed, to be that of GeoStab.
    """
    rows = []
    for record in _records(path):
        _, entry, mutation, ddg = record[:4]
        if "_" in mutation or not ddg:
            continue
        chain, wild, residue, mutant = mutation.split()
        identifier = pool.by_chain.get((entry.lower(), chain), "")
        if not identifier or len(pool.store.sequence(identifier)) != 1:
            continue
        [sequence] = pool.store.sequence(identifier)
        position = _position_of(residue, pool.store, identifier)
        if position is None or sequence[position] != wild:
            continue
        mutated = sequence[:position] + mutant + sequence[position + 1 :]
        rows.append((sequence, mutated, position, -float(ddg), identifier))
    table = _averaged(pd.DataFrame(rows, columns=COLUMNS[:-1]))
    table["mutant_structure"] = table["structure"]
    return table


def _records(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                yield line.rstrip("\n").split(",")


def _position_of(residue: str, store: EmbeddingStore, identifier: str) -> int | None:
    """Where a residue of the file ("27", "27A") is in the entry's sequence."""
    code = residue[-1] if residue[-1].isalpha() else " "
    number = int(residue.rstrip(code))
    where = store.residue_map(identifier)
    found = np.flatnonzero((where.residue_numbers == number) & (where.insertion_codes == ord(code)))
    return int(where.sequence_index[found[0]]) if len(found) else None


def _substituted(wild: str, mutant: str) -> int:
    """Return the position at which two sequences of one length differ."""
    different = [i for i, (a, b) in enumerate(zip(wild, mutant, strict=True)) if a != b]
    if len(different) != 1:
        raise ValueError(f"{len(different)} substitutions between {wild} and {mutant}")
    return different[0]


def _averaged(table: pd.DataFrame) -> pd.DataFrame:
    """One row per mutation, the mean of its measurements."""
    others = {name: "first" for name in table.columns if name not in ("wild", "mutant", "target")}
    grouped = table.groupby(["wild", "mutant"], sort=False)
    return grouped.agg({"target": "mean", **others}).reset_index()


def scope_labels(
    table: pd.DataFrame, level: int, least: int
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.bool_], int]:
    """(labels, which rows are kept, classes dropped) at a level of SCOPe.

    Level 1 is the class, 2 the fold, 3 the superfamily; kept are the classes that are found in at
    least ``least`` clusters at 30 % identity.
    """
    labels = table["scop40_hit"].str.split(".").str[:level].str.join(".").to_numpy(dtype=object)
    clusters = table["c30"].groupby(labels).nunique()
    enough = clusters.index[clusters >= least]
    return labels, np.isin(labels, enough), len(clusters) - len(enough)
