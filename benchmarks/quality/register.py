"""Shifts of a sequence on its backbone: how many are found, and how many are found that are none.

    protalign embed ../shared/data/folds ../shared/data/cath --out domains.zarr \
        --sequence-encoder esm2_t6_8M_UR50D --sequence-weights WEIGHTS
    python benchmarks/quality/register.py domains.zarr --sequence-encoder protalign_t6_2M
    python benchmarks/quality/register.py domains.zarr --sequence-encoder esm2_t6_8M_UR50D \
        --sequence-weights WEIGHTS
    python benchmarks/quality/register.py              # the sample alone, by the model that ships
    python benchmarks/quality/register.py --mode local # the same, aligned with gaps

A residue stage is fitted on the store's proteins without --proteins of them, which are tested, and
so are the chains of examples/sample with a complete backbone. The store's structure embeddings are
read; sequences are embedded by the encoder named. Without a store the sample is tested with the
stage of the model that ships, so that nothing else is needed. In each protein a stretch of --length
residues is shifted by 1, 2 or 3 residues, twice: its letters become those further on in the
sequence, as in a model whose register slips there. The whole changed sequence is embedded and put
on the unchanged backbone, residue by residue, or with --mode local as a local alignment has them. A
shift counts as found if a slip of the same shift has half of the stretch or more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from benchmarks.shared.measuring import MACHINE, SAMPLE
from protalign import EmbeddingStore, Model
from protalign.core.arrays import Float32, Int64
from protalign.core.words import AlignMode
from protalign.encoders import Encoder, EncoderSpec, load_encoder
from protalign.heads.shipped import shipped_model
from protalign.reading import ReadOptions, find_sources, read_sources
from protalign.residues import PairSums, ResidueStage, align
from protalign.residues.register import LEAST_GAIN, Stretch, check_register, find_stretches

GAINS = (12.0, LEAST_GAIN, 36.0, 48.0)
SHIFTS = (-3, -2, -1, 1, 2, 3)
#: Residues of a protein that is tested.
SHORTEST, LONGEST = 60, 400
ROWS_AT_ONCE = 1024
#: The sequence encoder of the model that ships.
SHIPPED = "protalign_t6_2M"


@dataclass
class Case:
    """A protein with a complete backbone: its letters and its rows of the residue stage."""

    id: str
    letters: str
    sequence: Float32
    structure: Float32


def main() -> None:
    options = parse()
    start = time.perf_counter()
    rng = np.random.default_rng(options.seed)
    encoder = load_encoder(
        EncoderSpec(options.sequence_encoder, weights=options.sequence_weights or "", device="cpu")
    )
    report: dict[str, Any] = {"encoder": encoder.name, "machine": MACHINE, "seed": options.seed}
    report["mode"] = options.mode
    if options.store is None:
        stage = Model.load(shipped_model(), "cpu").residue_scorer()
    else:
        stage, held_out = fitted(options.store, encoder, options.proteins, rng)
        say(start, f"fitted on {stage.n_residues:,} residues")
        report["held-out"] = measured(held_out, stage, encoder, options, rng)
        say(start, f"held-out: {json.dumps(report['held-out'], indent=2)}")
    sample = of_sample(stage, encoder)
    rng = np.random.default_rng(options.seed)
    report["sample"] = measured(sample, stage, encoder, options, rng)
    say(start, f"sample: {json.dumps(report['sample'], indent=2)}")
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path, nargs="?", help="a store with structure embeddings")
    parser.add_argument("--sequence-encoder", default=SHIPPED)
    parser.add_argument("--sequence-weights")
    parser.add_argument("--proteins", type=int, default=300, help="proteins held out and tested")
    parser.add_argument("--mode", choices=("global", "local"), default="global")
    parser.add_argument("--length", type=int, default=20, help="residues that are shifted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures here too")
    options = parser.parse_args()
    if options.store is None and options.sequence_encoder != SHIPPED:
        parser.error(f"the model that ships reads {SHIPPED}: give a store to fit a stage on")
    return options


def fitted(
    path: Path, encoder: Encoder, n_test: int, rng: np.random.Generator
) -> tuple[ResidueStage, list[Case]]:
    """Fit the stage on the store without some proteins; return it and those."""
    store = EmbeddingStore.open(path)
    entries = store[store.has_sequence & store.has_structure]
    index = store.sequence_rows(entries.entry_rows)
    letters = [store.sequence(entry_id) for entry_id in entries.ids.tolist()]
    lengths = entries.lengths
    whole = np.array([len(rows) == n for rows, n in zip(index, lengths, strict=True)])
    one_chain = np.array([len(chains) == 1 for chains in letters])
    fits = one_chain & whole & (lengths >= SHORTEST) & (lengths <= LONGEST)
    test = np.sort(rng.choice(np.flatnonzero(fits), n_test, replace=False))
    structure = entries.embeddings(entries.encoder_for("structure").name)
    known = [i for i in store.encoders.values() if i.weights_sha256 == encoder.weights_sha256]
    sequence = list(entries.embeddings(known[0].name)) if known else encoded(encoder, letters)
    sums = PairSums(encoder.dim, structure.values.shape[1])
    for place in np.setdiff1d(np.arange(len(entries)), test).tolist():
        sums.add(sequence[place][index[place]], structure[place])
    stage = sums.stage()
    cases = [
        Case(
            str(entries.ids[place]),
            letters[place][0],
            stage.plain_rows("sequence", sequence[place]),
            stage.plain_rows("structure", structure[place]),
        )
        for place in test.tolist()
    ]
    return stage, cases


def of_sample(stage: ResidueStage, encoder: Encoder) -> list[Case]:
    """Return the chains of examples/sample whose backbones are complete."""
    sources, _ = find_sources([SAMPLE])
    proteins = [
        protein
        for result in read_sources(sources, ReadOptions(), processes=1)
        for protein in result.proteins
        if len(protein.chains[0].structure_rows) == len(protein) and len(protein.chains) == 1
    ]
    structures = load_encoder(EncoderSpec("proteinmpnn_v_48_020", device="cpu"))
    sequence = encoded(encoder, [protein.sequences for protein in proteins])
    return [
        Case(
            protein.id,
            protein.sequences[0],
            stage.plain_rows("sequence", rows),
            stage.plain_rows("structure", structures.encode([protein.structure])[0]),
        )
        for protein, rows in zip(proteins, sequence, strict=True)
    ]


def encoded(encoder: Encoder, items: list[tuple[str, ...]]) -> list[Float32]:
    """Embed sequences, shortest first, in batches."""
    sizes = np.array([sum(map(len, item)) for item in items])
    order = np.argsort(sizes, kind="stable")
    batches = np.cumsum(sizes[order]) // ROWS_AT_ONCE
    rows: list[Float32] = [np.empty(0, np.float32)] * len(items)
    for batch in np.unique(batches):
        places = order[batches == batch].tolist()
        for place, values in zip(places, encoder.encode([items[p] for p in places]), strict=True):
            rows[place] = values
    return rows


def measured(
    cases: list[Case],
    stage: ResidueStage,
    encoder: Encoder,
    options: argparse.Namespace,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the rates of right and wrong findings at each least gain."""
    length, mode, changed = options.length, options.mode, []
    for case in [*cases, *cases]:
        shift = int(rng.choice(SHIFTS))
        first = int(rng.integers(3, len(case.letters) - length - 3))
        moved = case.letters[first + shift : first + shift + length]
        letters = case.letters[:first] + moved + case.letters[first + length :]
        changed.append((case, first, shift, letters))
    rows = encoded(encoder, [(letters,) for *_, letters in changed])
    sequences = [stage.plain_rows("sequence", values) for values in rows]
    residues = sum(len(case.letters) for case in cases)
    report: dict[str, Any] = {"proteins": len(cases), "shifts": len(changed), "residues": residues}
    for gain in GAINS:
        right = [slips(case.sequence, case.structure, mode, gain) for case in cases]
        found, ends = [], []
        for (case, first, shift, _), sequence in zip(changed, sequences, strict=True):
            same = [
                slip
                for slip in slips(sequence, case.structure, mode, gain)
                if slip.shift == shift
                and min(slip.last + 1, first + length) - max(slip.first, first) >= length / 2
            ]
            found.append((abs(shift), bool(same)))
            ends += [
                abs(error)
                for slip in same
                for error in (slip.first - first, slip.last - first - length + 1)
            ]
        report[f"gain {gain:g}"] = {
            "found": share([hit for _, hit in found]),
            **{
                f"found, shift of {n}": share([hit for each, hit in found if each == n])
                for n in (1, 2, 3)
            },
            "proteins with a slip that is none": share([bool(each) for each in right]),
            "residues in one": round(
                sum(s.last - s.first + 1 for each in right for s in each) / residues, 4
            ),
            "error of an end, median and 90 %": np.percentile(ends, [50, 90]).tolist(),
        }
    report["verdicts"] = verdicts(cases)
    return report


def slips(
    sequence: Float32, structure: Float32, mode: AlignMode, gain: float
) -> tuple[Stretch, ...]:
    """Return the slips of a sequence on its backbone, in rows of the structure."""
    pairs: tuple[Int64, Int64] = np.arange(len(sequence)), np.arange(len(sequence))
    if mode == "local":
        found = align(sequence, structure)
        pairs = found.query_rows, found.target_rows
    register = check_register(sequence, structure, *pairs, least_gain=gain)
    return find_stretches(sequence, structure, *pairs, register, least_gain=gain)


def verdicts(cases: list[Case]) -> dict[str, dict[str, float]]:
    """Return the shares of the verdicts: a protein on itself, and on another one's backbone."""
    shares = {}
    for name, others in (("itself", cases), ("another", [*cases[1:], cases[0]])):
        every = []
        for case, other in zip(cases, others, strict=True):
            pairs = np.arange(min(len(case.sequence), len(other.structure)))
            every += check_register(case.sequence, other.structure, pairs, pairs).verdicts
        shares[name] = {verdict: share([e == verdict for e in every]) for verdict in set(every)}
    return shares


def share(hits: list[bool]) -> float:
    return round(sum(hits) / max(len(hits), 1), 4)


def say(start: float, text: str) -> None:
    print(f"{time.perf_counter() - start:6.0f} s  {text}", flush=True)


if __name__ == "__main__":
    main()
