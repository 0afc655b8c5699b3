"""``protalign fit``: a store into a model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protalign.cli.console import (
    USAGE,
    Interrupted,
    on_ctrl_c,
    print_json,
    quick_imports,
    refuse_beside,
)
from protalign.cli.options import (
    AsJson,
    Device,
    IdsPath,
    OptionalSplitPath,
    Quiet,
    Seed,
    SequenceEmbeddings,
    StoreList,
    StructureEmbeddings,
)
from protalign.core.errors import InputError
from protalign.core.launch import launch
from protalign.core.printing import printable
from protalign.core.unfinished import put_back
from protalign.core.words import Loss, counted
from protalign.heads.poolings import POOLINGS

if TYPE_CHECKING:
    from protalign.estimator.estimator import ProtAlignEstimator
    from protalign.stores import EmbeddingStore, Entries, StoreView

#: Seconds after which a process ends that does not say why: torchrun then ends all at once, and
#: whoever does say it should have done so.
_WAIT = 1.0


def fit(
    context: typer.Context,
    store: StoreList,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write the model to.")],
    loss: Annotated[
        Loss, typer.Option(help="Contrastive loss: CLIP's softmax or SigLIP's sigmoid.")
    ] = "clip",
    temperature: Annotated[
        float, typer.Option(help="Similarities are divided by this temperature.")
    ] = 0.07,
    bias: Annotated[
        float, typer.Option(help="--loss siglip: its bias when training starts.")
    ] = -10.0,
    learnable_temperature: Annotated[
        bool, typer.Option("--learnable-temperature", help="Learn the temperature as well.")
    ] = False,
    embed_dim: Annotated[int, typer.Option(help="Length of the vectors.")] = 128,
    heads: Annotated[int, typer.Option(help="--pooling attention: heads per modality.")] = 4,
    pooling: Annotated[
        str,
        typer.Option(
            metavar=f"<{'|'.join(POOLINGS)}>",
            help="How residues become one vector: attention, a codebook of residue words, or their "
            "mean and then a linear layer or an MLP.",
        ),
    ] = "attention",
    batch_size: Annotated[int, typer.Option(help="Pairs per batch.")] = 1024,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 0.001,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            help="Stop the pooling heads after this many passes over the pairs. The head of "
            "--residue-head has its own."
        ),
    ] = None,
    residue_context: Annotated[
        bool,
        typer.Option(
            help="Train a network that reads a residue's neighbours, in one to three minutes: "
            "search --rerank and align then find more relatives in their local mode. It needs "
            "200,000 paired residues."
        ),
    ] = True,
    residue_head: Annotated[
        bool,
        typer.Option(
            "--residue-head",
            help="Also train on hard negatives which residues fit, in minutes: search --rerank "
            "--mode global then tells near-identical proteins apart better.",
        ),
    ] = False,
    seed: Seed = 0,
    ids: IdsPath = None,
    validation_ids: Annotated[
        Path | None,
        typer.Option(
            help="Stop early on these entries and do not train on them: a text file with one id "
            "per line. Default: a random tenth of the pairs, 10,000 at most."
        ),
    ] = None,
    split: OptionalSplitPath = None,
    sequence_encoder: SequenceEmbeddings = None,
    structure_encoder: StructureEmbeddings = None,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model in the folder.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print a line per epoch.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on a store's sequences and structures.

    With --split it trains on the split's train part and stops early on its validation part. Ctrl-C
    stops the training and saves the best model so far.

    \b
    Examples:
      protalign fit store.zarr --out model/
      protalign fit store.zarr --split split.csv --out model/
      protalign fit 'shards/*.zarr' --out model/
    """
    with _one_of_all() as first:
        if pooling in POOLINGS and pooling != "attention":
            refuse_beside(context, ["heads"], f"--pooling {pooling}")
        if loss != "siglip":
            refuse_beside(context, ["bias"], f"--loss {loss}")
        if quiet:
            refuse_beside(context, ["verbose"], "--quiet")
        if split is not None and (ids is not None or validation_ids is not None):
            raise InputError(
                "--split: cannot be combined with --ids or --validation-ids",
                "give one or the other",
            )
        if first:
            put_back(out)
        # A saved model is found before the imports; check_target refuses other files and folders.
        if first and (out / "config.json").is_file() and not overwrite:
            raise InputError(f"--out {out}: it exists", "name another folder or add --overwrite")
        with quick_imports():
            from protalign.estimator.estimator import ProtAlignEstimator
            from protalign.heads.model_files import check_target
            from protalign.stores import EmbeddingStore

        if first:
            check_target(out)
        estimator = ProtAlignEstimator(
            embed_dim=embed_dim,
            n_heads=heads,
            pooling=pooling,
            loss=loss,
            temperature=temperature,
            bias=bias,
            learnable_temperature=learnable_temperature,
            batch_size=batch_size,
            learning_rate=learning_rate,
            residue_context=residue_context,
            residue_head=residue_head,
            random_state=seed,
            device=device,
            sequence_encoder=sequence_encoder,
            structure_encoder=structure_encoder,
            verbose=verbose,
        )
        if max_epochs is not None:
            estimator.set_params(max_epochs=max_epochs)
        train, validation, how = _parts(EmbeddingStore.open(store), split, ids, validation_ids)
        with on_ctrl_c("no model was saved"):
            interrupted = _train(estimator, train, validation, how)
        if not first:
            return
        estimator.save(out)
        summary = _summary(estimator)
        if as_json:
            print_json(summary)
        elif not quiet:
            print(
                f"{printable(out)}: trained on {counted(summary['pairs'], 'pair')}; keeps epoch "
                f"{summary['best_epoch']} of {summary['epochs']}; "
                f"training loss {summary['loss']:.4f}"
            )
        if interrupted:
            raise Interrupted("the best model so far is saved")


@contextmanager
def _one_of_all() -> Iterator[bool]:
    """Train with the other processes that torchrun started, if there are any; none without it.

    Yields whether this one prints and writes for all. If several fail, one line says why: that of
    the first.
    """
    place = launch()
    if place.size == 1:
        yield True
        return
    with quick_imports():
        from protalign.heads.distributed import together

    ranks = None
    try:
        with together() as ranks, warnings.catch_warnings():
            if not ranks.first:
                warnings.simplefilter("ignore")
            yield ranks.first
    except BaseException:
        if ranks is None or ranks.fails_first():
            raise
        time.sleep(_WAIT)
        raise SystemExit(USAGE) from None


def _parts(
    store: EmbeddingStore, split: Path | None, ids: Path | None, validation_ids: Path | None
) -> tuple[Entries, StoreView | None, str]:
    """Return the training and the validation entries, and in words what the latter are."""
    from protalign.splits import read_split
    from protalign.splits.ids import by_ids, read_ids

    if split is not None:
        made = read_split(split)
        parts = made.of(store)
        how = f"the validation part of {split.name}" + (f": {made.how}" if made.how else "")
        return parts["train"], parts["validation"] if len(parts["validation"]) else None, how
    names = [None if path is None else read_ids(path) for path in (ids, validation_ids)]
    how = "given" if validation_ids is None else f"the entries of {validation_ids.name}"
    return *by_ids(store, *names), how


def _train(
    estimator: ProtAlignEstimator, train: Entries, validation: StoreView | None, how: str
) -> bool:
    """Fit the estimator; return whether Ctrl-C ended the training after its first epoch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        estimator.fit(train, X_val=validation, validation=how)
    interrupted = False
    for warning in caught:
        if "interrupted by user" in str(warning.message):
            interrupted = True
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return interrupted


def _summary(estimator: ProtAlignEstimator) -> dict[str, Any]:
    return {
        "pairs": int(estimator.n_pairs_),
        "epochs": int(estimator.n_iter_),
        "best_epoch": int(estimator.best_epoch_),
        "loss": float(estimator.loss_curve_[-1]),
        "loss_curve": [float(value) for value in estimator.loss_curve_],
    }
