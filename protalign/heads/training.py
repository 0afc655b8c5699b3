"""Training of the model: batches of pairs, epochs, early stopping."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from protalign.core.arrays import Int64
from protalign.core.errors import ModelError
from protalign.core.protein import MODALITIES
from protalign.heads.adam import Adam
from protalign.heads.distributed import Ranks, current
from protalign.heads.model import Model, not_finite
from protalign.heads.order import Order
from protalign.heads.pairs import Pairs
from protalign.heads.ranks import RetrievalSet, mean_reciprocal_rank
from protalign.heads.rows import Batch, Rows
from protalign.heads.summaries import Summaries

#: Losses are fetched in groups: each fetch synchronises CPU and GPU. An error shows at the next
#: fetch, so up to this many steps may be wasted before it.
_LOSSES_AT_ONCE = {"cpu": 1}
_LOSSES_AT_ONCE_ACCELERATOR = 64


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """The settings of a training run, as ``ProtAlignEstimator`` describes them."""

    batch_size: int
    learning_rate: float
    max_epochs: int
    n_iter_no_change: int
    tol: float


@dataclass(slots=True)
class History:
    """The curves of a training run.

    Attributes
    ----------
    loss : list of float
        Mean training loss of each epoch.
    validation : list of float
        Mean reciprocal rank of the validation pairs after each epoch; empty without any.
    best_epoch : int
        The 1-based epoch whose parameters were kept.
    interrupted : bool
        Whether Ctrl-C ended the run.
    """

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = 0
    interrupted: bool = False


def train(
    model: Model,
    pairs: Pairs,
    validation: Pairs | None,
    options: TrainingOptions,
    generator: np.random.Generator,
    report: Callable[[str], None],
) -> History:
    """Train the model in place with Adam, and leave it as it was after the best epoch.

    The heads of a model that was not trained before are initialised by the pairs first. Inside
    ``protalign.heads.distributed.together`` each process pools its part of every batch, and all end
    with the same model.

    With validation pairs, the best epoch has the highest mean reciprocal rank (sequence ->
    structure) among them, and training stops after ``n_iter_no_change`` epochs without a gain of
    more than ``tol``. Without them, the best epoch is the last. Ctrl-C stops training and keeps
    the best epoch so far; of several processes it ends all.

    Parameters
    ----------
    model : Model
        The model, on the device to train on.
    pairs, validation : Pairs
        The pairs to train on; the pairs to validate on, or None.
    options : TrainingOptions
        The settings.
    generator : numpy.random.Generator
        The source of the batches' order.
    report : callable
        Receives a line per epoch.

    Raises
    ------
    InputError
        Embeddings hold NaN or infinity.
    ModelError
        Training diverged.
    LostProcessError
        Another process of the training ended or cannot be reached.
    """
    ranks = current()
    _initialise(model, pairs, generator, report, ranks)
    source = Summaries(model, pairs) if model.sequence.summarises else Rows(pairs, model.device)
    score_of = _validate_on(validation, model)
    optimiser = Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        options.learning_rate,
    )
    history = History()
    best_state, best_score, waited = copy.deepcopy(model.state_dict()), -math.inf, 0
    try:
        for epoch in range(1, options.max_epochs + 1):
            loss = _epoch(model, source, pairs, optimiser, options.batch_size, generator)
            history.loss.append(loss)
            line = f"epoch {epoch}: loss {loss:.4f}"
            if score_of is None:
                history.best_epoch = epoch
                report(line)
                continue
            score = score_of(model)
            history.validation.append(score)
            report(f"{line}, validation MRR {score:.4f}")
            waited = waited + 1 if score < best_score + options.tol else 0
            if score > best_score:
                best_score, history.best_epoch = score, epoch
                best_state = copy.deepcopy(model.state_dict())
            if waited >= options.n_iter_no_change:
                report(f"stopped: no gain in {waited} epochs; best was epoch {history.best_epoch}")
                break
    except KeyboardInterrupt:
        kept = history.best_epoch > 0 and (history.validation or _all_finite(model))
        if not (kept and ranks.alone):  # others are at another step, and may go on to another epoch
            raise
        history.interrupted = True
        warnings.warn("Training interrupted by user: the best so far is kept.", stacklevel=3)
    if history.validation:
        model.load_state_dict(best_state)
    for head in (model.sequence, model.structure):
        head.finish()
    return history


def _initialise(
    model: Model,
    pairs: Pairs,
    generator: np.random.Generator,
    report: Callable[[str], None],
    ranks: Ranks,
) -> None:
    """Give every rank rank 0's values to start from, and its generator as it then is."""
    if ranks.first and model.training_record is None:
        heads = model.sequence, model.structure
        type(model.sequence).initialise(*heads, pairs, generator, report)
    ranks.values_of_first(model)
    ranks.generator_of_first(generator)


def _epoch(
    model: Model,
    source: Rows | Summaries,
    pairs: Pairs,
    optimiser: Adam,
    batch_size: int,
    generator: np.random.Generator,
) -> float:
    """Run one pass over the pairs in a random order; return the mean loss."""
    order = source.order(batch_size, generator)
    batches = order.batches
    ranks = current()
    ranks.check_same("the order of the batches", *batches)
    heads = [*model.sequence.parameters(), *model.structure.parameters()]
    at_once = _LOSSES_AT_ONCE.get(model.device.type, _LOSSES_AT_ONCE_ACCELERATOR)
    total, losses = 0.0, []
    for number, loss in enumerate(_losses(model, source, order, generator), start=1):
        optimiser.zero_grad()
        losses.append(loss.detach())
        if len(losses) == at_once or number == len(batches):
            total += _sum_of_losses(losses, batches[number - len(losses) : number], pairs)
            losses.clear()
        loss.backward()  # type: ignore[no-untyped-call]
        ranks.add_gradients(heads, list(model.loss.parameters()))
        optimiser.step()
    return total / sum(map(len, batches))


def _losses(
    model: Model,
    source: Rows | Summaries,
    order: Order,
    generator: np.random.Generator,
) -> Iterator[Tensor]:
    """Yield the loss of each batch, 0-d; each rank pools its part of it."""
    if isinstance(source, Summaries):
        yield from source.losses(order.batches, generator, order.windows)
        return
    ranks = current()
    own = [indices[ranks.own(len(indices))] for indices in order.batches]
    rows = source.batches(own, order.windows)
    for indices, (sequence, structure) in zip(order.batches, rows, strict=True):
        vectors = model.sequence(sequence), model.structure(structure)
        yield model.loss(*(ranks.gathered(each, len(indices)) for each in vectors))


def _all_finite(model: Model) -> bool:
    """Return whether all parameters are finite: losses not yet fetched may have diverged."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def _sum_of_losses(losses: Sequence[Tensor], batches: Sequence[Int64], pairs: Pairs) -> float:
    """Sum the losses over the pairs of some batches; raise ValueError if one is not finite."""
    total = 0.0
    for loss, indices in zip(torch.stack(list(losses)).tolist(), batches, strict=True):
        if not math.isfinite(loss):
            cpu = torch.device("cpu")
            raise _broken(pairs, indices, next(Rows(pairs, cpu, memory=0).batches([indices])))
        total += loss * len(indices)
    return total


def _validate_on(pairs: Pairs | None, model: Model) -> Callable[[Model], float] | None:
    """Return a function that validates the model; the pairs are read once if they fit."""
    if pairs is None:
        return None
    ranks = current()
    if model.sequence.summarises:
        summaries = Summaries(model, pairs)
        if summaries.held:
            return lambda _: _reciprocal_rank(summaries.retrieval_set(), ranks)
    positions = [pairs.positions_of_items(column) for column in range(len(MODALITIES))]
    own = [ranks.own(len(entries)) for entries in positions]
    items = Rows(pairs, model.device).unique_items(own)

    def score(model: Model) -> float:
        vectors = []
        for column, modality in enumerate(MODALITIES):
            entries = positions[column][own[column]]
            pooled = (
                model.vectors(pairs.inputs, modality, entries)
                if items is None
                else model.finite_vectors(items[column], pairs.inputs, modality, entries)
            )
            of_all = ranks.gathered(torch.from_numpy(pooled), len(positions[column]))
            vectors.append(of_all.numpy())
        sequence, structure = vectors
        return _reciprocal_rank(RetrievalSet(sequence, structure, pairs.items), ranks)

    return score


def _reciprocal_rank(found: RetrievalSet, ranks: Ranks) -> float:
    """Return the mean reciprocal rank; rank 0's, by whose rounding all ranks then decide."""
    return ranks.number_of_first(lambda: mean_reciprocal_rank(found.ranks()))


def _broken(pairs: Pairs, indices: Int64, batch: Batch) -> ValueError:
    """Return the error for a loss that is not finite: broken rows, else diverged training."""
    for modality, packed in zip(MODALITIES, batch, strict=True):
        broken = [i for i, rows in enumerate(packed.proteins) if not rows.isfinite().all()]
        if broken:
            return not_finite(pairs.inputs, modality, pairs.positions[indices[broken]])
    return ModelError("training diverged: the loss is NaN or infinite; use a lower learning_rate")
