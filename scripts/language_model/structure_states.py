"""Read the structure encoder's states from a store, as targets for `train.py`.

    protalign embed chains/ --out store.zarr --sequence-encoder none
    python scripts/language_model/structure_states.py --store store.zarr \\
        --table chains.csv --split train --out states.safetensors

The table is a CSV file with the columns id, split, and the number of the entry's family (the
column that `--group` names). Entries of other splits are never read. Entries of several chains are
left out: their states depend on all chains, and a sequence encoder sees only one.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the scripts' folder

from language_model.structures import write_states
from protalign.stores import EmbeddingStore

Float16 = NDArray[np.float16]


def families(table: Path, split: str, group: str) -> dict[str, int]:
    """Read the family of every id of a split from the table."""
    with table.open(newline="", encoding="utf-8") as handle:
        return {
            row["id"]: int(row[group]) for row in csv.DictReader(handle) if row["split"] == split
        }


def states_of(store: EmbeddingStore, entry: str, encoder: str) -> Float16:
    """Return a chain's states, (residues, 128); NaN if a residue's backbone is incomplete."""
    (chain,) = store.structure(entry).kept_chains
    states = np.full((len(chain), store.encoders[encoder].dim), np.nan, dtype=np.float16)
    states[chain.structure_rows] = store[[entry]].embeddings(encoder)[0]
    return states


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--store", type=Path, required=True, help="with embeddings of the structures")
    add("--table", type=Path, required=True, help="CSV: id, split, family")
    add("--split", default="train", help="which entries to take")
    add("--group", default="c30", help="the table's column that numbers the families")
    add("--encoder", default="proteinmpnn_v_48_020", help="name of the embeddings in the store")
    add("--out", type=Path, required=True, help="safetensors file to write")
    options = parser.parse_args()
    store = EmbeddingStore.open(options.store)
    groups = families(options.table, options.split, options.group)
    single = [entry for entry in groups if entry in store and len(store.sequence(entry)) == 1]
    write_states(
        options.out,
        {entry: store.sequence(entry)[0] for entry in single},
        groups,
        {entry: states_of(store, entry, options.encoder) for entry in single},
    )
    print(f"{len(single):,} of {len(groups):,} chains written to {options.out}")


if __name__ == "__main__":
    main()
