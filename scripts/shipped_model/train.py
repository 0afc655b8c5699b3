r"""Train the model that ships with ProtAlign, and measure it on proteins that it has not seen.

    python scripts/shipped_model/train.py folds/ cath/ --unseen casf2016/ --work work/

The folders hold structures of one domain for each SCOPe fold and for each CATH superfamily
(coordinates of the wwPDB, CC0), and complexes of which none resembles them. They are embedded into
stores in the work folder, where an interrupted run goes on. The model and its figures go into the
package; `--out` names another place, and `--sequence-encoder` another encoder of sequences, whose
model is never put into the package:

    python scripts/shipped_model/train.py domains/ --sequence-encoder esm2_t33_650M_UR50D \
        --unseen others/ --work work/ --out models/
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository's folder

from protalign import EmbeddingStore, ProtAlignEstimator, embed
from protalign.core.files import write_json
from protalign.evaluation.evaluate import evaluate
from protalign.heads.model import Model
from protalign.heads.shipped import FIGURES, SHIPPED

SMALL, STRUCTURE = "protalign_t6_2M", "proteinmpnn_v_48_020"
DATA = "one domain of each SCOPe 2.07 fold and of each CATH superfamily; wwPDB, CC0"
#: Bytes that the model may take in the package.
MOST = 3_000_000
ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("domains", nargs="+", type=Path, help="Structures to train on.")
    parser.add_argument("--unseen", type=Path, required=True, help="Structures to measure on.")
    parser.add_argument("--work", type=Path, required=True, help="A folder for the stores.")
    parser.add_argument("--out", type=Path, help="Default: the package.")
    parser.add_argument("--sequence-encoder", default=SMALL)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ships = options.sequence_encoder == SMALL
    if not ships and options.out is None:
        parser.error("--out: it is missing; only the small encoder's model goes into the package")
    out = options.out or ROOT / "protalign" / "heads" / "data"
    folder = out / (SHIPPED if ships else "model")
    encoders = [options.sequence_encoder, STRUCTURE]
    training = embedded(options.domains, options.work / "domains.zarr", encoders)
    unseen = embedded([options.unseen], options.work / "unseen.zarr", encoders)
    model = fitted(training, options.seed, DATA if ships else "")
    model.save(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size:,} bytes")
    if ships and size > MOST:
        raise SystemExit(f"the model has more than {MOST:,} bytes")
    found = figures(Model.load(folder), unseen, training)
    data = DATA if ships else [str(path) for path in options.domains]
    write_json(out / FIGURES, {"data": data, "seed": options.seed, **found})
    print(found["worth"])


def embedded(paths: list[Path], out: Path, encoders: list[str]) -> EmbeddingStore:
    """Embed structures, or what is missing of them."""
    report = embed(paths, out, encoders)
    for failure in report.failures:
        print(f"{failure.file}: {failure.reason}", file=sys.stderr)
    if not report.entries:
        raise SystemExit(f"{paths[0]}: no structure could be read; name another folder")
    return EmbeddingStore.open(out)


def fitted(store: EmbeddingStore, seed: int, data: str) -> Model:
    """Fit the model on a store, with heads in half precision; ``data`` names the store in it.

    The model of the package, whose data have a name, has no residue context.
    """
    estimator = ProtAlignEstimator(
        pooling="codebook",
        residue_context=not data,  # the one in the package must be small
        residue_head=True,
        random_state=seed,
        device="cpu",
        verbose=True,
    )
    model = estimator.fit(store).model_
    for head in (model.sequence, model.structure):
        head.half()
    stage = model.residue_scorer()
    assert stage.head is not None
    context = None if stage.context is None else stage.context.half()
    model.residue_stage = replace(stage, head=stage.head.half(), context=context)
    assert model.training_record is not None
    if data:
        model.training_record = replace(model.training_record, source=data)
    return model


def figures(model: Model, unseen: EmbeddingStore, training: EmbeddingStore) -> dict[str, Any]:
    """Measure retrieval among unseen proteins, and say in a line what it is worth."""
    report = evaluate(model, unseen, train=training, residues=True)
    protein = report["sequence_to_structure"]["tasks"]["protein"]
    names = {"vectors": "model", "residues, local": "residues_local"}
    names |= {"residues, global": "residues_global", "chance": "chance"}
    recall: dict[str, Mapping[str, float]] = {
        label: {k: round(protein[name][k]["value"], 3) for k in ("recall_at_1", "recall_at_5")}
        for label, name in names.items()
        if name in protein
    }
    count = report["sequence_to_structure"]["n_queries"]
    best = {label: 100 * each["recall_at_1"] for label, each in recall.items()}
    small = "small, for a first look: " if model.encoders["sequence"].model == SMALL else ""
    worth = (
        f"{small}among {count} unseen structures a sequence's own one is first "
        f"in {best['vectors']:.0f} % by vectors, in {best['residues, global']:.0f} % by residues"
    )
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    return {"worth": worth, "unseen": count, "recall": recall, "machine": machine}


if __name__ == "__main__":
    main()
