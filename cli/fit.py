"""``protalign fit``, ``protalign score`` and ``protalign export``: the heads and their vectors."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protalign.cli.console import print_json, print_table, quick_imports, refuse_unused

if TYPE_CHECKING:
    from protalign.estimator.estimator import ProtAlignEstimator
    from protalign.stores import EmbeddingStore, StoreView

StorePath = Annotated[Path, typer.Argument(help="A store that `protalign embed` made.")]
ModelPath = Annotated[Path, typer.Option("--model", "-m", help="A folder that `fit` wrote.")]
IdsPath = Annotated[
    Path | None,
    typer.Option("--ids", help="Only these entries: a text file, an id a line."),
]
SplitPath = Annotated[
    Path | None, typer.Option("--split", help="A split that `protalign split` wrote.")
]
EncoderName = Annotated[str | None, typer.Option(help="Which, where the store has several.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]


class Pooling(StrEnum):
    """How a protein's residues become one vector."""

    attention = "attention"
    mean_linear = "mean-linear"
    mean_mlp = "mean-mlp"


class Part(StrEnum):
    """The parts of a split."""

    train = "train"
    validation = "validation"
    test = "test"


class Loss(StrEnum):
    """The contrastive losses."""

    clip = "clip"
    siglip = "siglip"


def fit(
    store: StorePath,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model.")],
    loss: Annotated[Loss, typer.Option(help="CLIP (softmax) or SigLIP (sigmoid).")] = Loss.clip,
    temperature: Annotated[float, typer.Option(help="tau; similarities are divided by it.")] = 0.07,
    bias: Annotated[float, typer.Option(help="SigLIP's bias at the start.")] = -10.0,
    learnable_temperature: Annotated[
        bool, typer.Option("--learnable-temperature", help="Learn tau too.")
    ] = False,
    embed_dim: Annotated[int, typer.Option(help="Length of the vectors.")] = 128,
    heads: Annotated[int, typer.Option(help="Attention heads of each pooling head.")] = 4,
    pooling: Annotated[
        Pooling, typer.Option(help="Attention, or the residues' mean through a layer or an MLP.")
    ] = Pooling.attention,
    batch_size: Annotated[int, typer.Option(help="Pairs in a batch.")] = 1024,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = 0.001,
    max_epochs: Annotated[int | None, typer.Option(help="Passes over the pairs, at most.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same model.")] = 0,
    ids: IdsPath = None,
    validation_ids: Annotated[
        Path | None,
        typer.Option(
            help="Stop early on these entries (a file like --ids), and never train on them; "
            "default: a random part."
        ),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            help="A split that `protalign split` wrote, in place of --ids and --validation-ids: "
            "train on its train part, stop early on its validation part."
        ),
    ] = None,
    sequence_encoder: EncoderName = None,
    structure_encoder: EncoderName = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line an epoch.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the two pooling heads on a store's pairs of sequence and structure."""
    with quick_imports():
        from protalign.core.errors import InputError
        from protalign.estimator.estimator import ProtAlignEstimator
        from protalign.heads.model_files import check_place

    place = check_place(out)  # before the training, not after it
    if place.exists() and any(place.iterdir()) and not overwrite:
        raise InputError(f"{out} is there already", "name another folder or give --overwrite")
    estimator = ProtAlignEstimator(
        embed_dim=embed_dim,
        n_heads=heads,
        pooling=pooling.value,
        loss=loss.value,
        temperature=temperature,
        bias=bias,
        learnable_temperature=learnable_temperature,
        batch_size=batch_size,
        learning_rate=learning_rate,
        random_state=seed,
        device=device,
        sequence_encoder=sequence_encoder,
        structure_encoder=structure_encoder,
        verbose=verbose,
    )
    if max_epochs is not None:
        estimator.set_params(max_epochs=max_epochs)
    opened = _open(store)
    pairs, validation = _training_parts(opened, split, ids, validation_ids)
    estimator.fit(pairs, X_val=validation, validation=_chosen_by(split, validation_ids))
    estimator.save(out)
    if as_json:
        print_json(_training_summary(estimator))
    elif not quiet:
        summary = _training_summary(estimator)
        print(
            f"{out}: {summary['pairs']:,} pairs, {summary['epochs']} epochs, "
            f"best {summary['best_epoch']}, loss {summary['loss']:.4f}"
        )


def score(
    context: typer.Context,
    store: StorePath,
    model: ModelPath,
    ids: IdsPath = None,
    split: SplitPath = None,
    part: Annotated[Part, typer.Option(help="Which part of --split.")] = Part.test,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Retrieval within the store, --ids or a --split's part: Recall@1, 5, 10, MRR, median rank.

    Under each recall is what a random order would give.
    """
    from protalign.heads.ranks import retrieval_report

    if split is None:
        refuse_unused(context, ["part"], "--split")
    _refuse_both(split, ids)
    estimator = _load(model, device)
    opened = _open(store)
    chosen = _select(opened, ids) if split is None else _parts(opened, split)[part.value]
    report = retrieval_report(estimator, chosen)
    if as_json:
        print_json(report)
        return
    _print_report(report)


def export(
    store: StorePath,
    model: ModelPath,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file: .parquet, .csv or .h5ad (AnnData).")
    ],
    features: Annotated[
        str,
        typer.Option(
            help="aligned; or aligned,mean: the means of the residues' embeddings beside them."
        ),
    ] = "aligned",
    ids: IdsPath = None,
    device: Device = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Write the pooled, aligned vectors to a file: id, length, sequence and structure vector."""
    view = _select(_open(store), ids)
    estimator = _load(model, device)
    estimator.export(view, out, features=[name.strip() for name in features.split(",")])
    if not quiet:
        print(
            f"{out}: {len(view):,} ids, {int(view.has_sequence.sum()):,} sequence and "
            f"{int(view.has_structure.sum()):,} structure vectors"
        )


def _open(path: Path) -> EmbeddingStore:
    from protalign.stores import EmbeddingStore

    return EmbeddingStore.open(path)


def _load(model: Path, device: str) -> ProtAlignEstimator:
    with quick_imports():
        from protalign.estimator.estimator import ProtAlignEstimator

    estimator = ProtAlignEstimator.load(model)
    estimator.set_params(device=device)
    return estimator


def _training_parts(
    store: EmbeddingStore, split: Path | None, ids: Path | None, validation_ids: Path | None
) -> tuple[EmbeddingStore | StoreView, StoreView | None]:
    """What is trained on, and what training is stopped early on, if that is given."""
    if split is None:
        validation = None if validation_ids is None else store[read_ids(validation_ids)]
        return _select(store, ids, leave_out=validation_ids), validation
    _refuse_both(split, ids)
    _refuse_both(split, validation_ids)
    parts = _parts(store, split)
    return parts["train"], parts["validation"] if len(parts["validation"]) else None


def _chosen_by(split: Path | None, validation_ids: Path | None) -> str:
    """What the validation entries are, in words."""
    from protalign.splits.make import read_split

    if split is None:
        return "given" if validation_ids is None else f"the entries of {validation_ids.name}"
    how = read_split(split).how
    return f"the validation part of {split.name}" + (f": {how}" if how else "")


def _parts(store: EmbeddingStore, split: Path) -> dict[str, StoreView]:
    from protalign.splits.make import read_split

    return read_split(split).of(store)


def _refuse_both(split: Path | None, ids: Path | None) -> None:
    from protalign.core.errors import InputError

    if split is not None and ids is not None:
        raise InputError("--split says which entries are meant", "drop the other file of ids")


def _select(
    store: EmbeddingStore, ids: Path | None, *, leave_out: Path | None = None
) -> EmbeddingStore | StoreView:
    """The whole store or the entries that a file names, without those that another file names."""
    chosen = store if ids is None else store[read_ids(ids)]
    if leave_out is None:
        return chosen
    import numpy as np

    return chosen[~np.isin(chosen.ids, read_ids(leave_out))]


def read_ids(path: Path) -> list[str]:
    """The ids of a text file, one a line; lines after # are passed over."""
    from protalign.core.errors import InputError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error})", "give a text file, an id a line"
        ) from None
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise InputError(f"{path} names no id", "give a text file, an id a line")
    return found


def _training_summary(estimator: ProtAlignEstimator) -> dict[str, Any]:
    return {
        "pairs": int(estimator.n_pairs_),
        "epochs": int(estimator.n_iter_),
        "best_epoch": int(estimator.best_epoch_),
        "loss": float(estimator.loss_curve_[-1]),
        "loss_curve": [float(value) for value in estimator.loss_curve_],
    }


def _print_report(report: dict[str, Any]) -> None:
    header = ["", "Recall@1", "Recall@5", "Recall@10", "MRR", "median rank"]
    rows = []
    for direction in ("sequence_to_structure", "structure_to_sequence"):
        figures = report[direction]
        rows.append(
            [
                direction.replace("_", " "),
                f"{100 * figures['recall_at_1']:.1f} %",
                f"{100 * figures['recall_at_5']:.1f} %",
                f"{100 * figures['recall_at_10']:.1f} %",
                f"{figures['mrr']:.3f}",
                f"{figures['median_rank']:g}",
            ]
        )
        chance = [f"{100 * figures[f'chance_recall_at_{k}']:.1f} %" for k in (1, 5, 10)]
        rows.append(["  by chance", *chance, "", ""])
    print(f"{report['n_queries']:,} queries among {report['n_candidates']:,} candidates")
    print_table(header, rows)
