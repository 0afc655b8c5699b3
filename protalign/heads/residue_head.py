"""Training of the residue head: rows that tell a protein's partner from its look-alikes.

A batch is some groups of pairs. A group is a pair and some of those whose structures its sequence
fits best by the residue stage: near-identical proteins, if there are any. In a group each sequence
is scored with each structure, and with a few random ones, on the best diagonal of the moment; the
loss is the symmetric cross entropy of these scores. So groups need no clusters of sequences: every
pair of encoders has them, and so has a machine without MMseqs2.

Three in ten sequences lose up to a fifth at each end. Their embeddings are cut, not made again: a
stand-in, since the encoder is not at hand.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from protalign.core.arrays import Bool, Float32, Int64
from protalign.core.errors import ModelError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.heads.inputs import FEW_ELEMENTS
from protalign.heads.pairs import MIN_VALIDATION_PAIRS, Pairs
from protalign.residues import ResidueStage
from protalign.residues.head import REACH, ResidueHead, head_rows, neighbours_of
from protalign.residues.kernels.scores import diagonal_scores

#: Hidden numbers of a residue.
_HIDDEN = 64
#: Pairs to train on and to validate on, at most: time and memory grow with their number.
_PAIRS, _VALIDATION_PAIRS = 8000, 400
#: Fewer pairs have no look-alikes.
_LEAST_PAIRS = 20
#: Residues of a protein that is trained on, at most.
_LONGEST = 800
#: Pairs of a group, look-alikes to draw them from, groups of a batch, and random structures that
#: join each group.
_GROUP, _ALIKE, _GROUPS, _RANDOM = 6, 8, 10, 4
#: Pairs nearest by their mean rows, which are scored to find look-alikes.
_NEAREST = 40
#: A look-alike whose score is less than this part of a pair's own is easily told apart.
_HARD = 0.5
#: Means that are compared with all others at once.
_AT_ONCE = 1024
#: Passes over the pairs. Of 808 validation chains 85.4, 86.9 and 85.6 % are told from their
#: look-alikes (three seeds), with 5 passes 85.5 and 85.3 % (two of them).
EPOCHS = 10
#: Of what begins at random, and of what the stage has fitted.
_LEARNING_RATE, _FITTED_RATE = 1e-3, 2e-4
_WEIGHT_DECAY, _WARM_UP = 0.01, 20
#: Scores are multiplied by the best of these at the start, by the loss of some batches; it is
#: learned then. If it is too high, training makes the scores smaller and not better.
_SHARPNESSES, _TRIED = (0.05, 0.02, 0.01, 0.005), 2
#: The part of the sequences that is cut, and the part that an end loses at most. If half of them
#: are cut, 84.5 % of whole validation chains are told from their look-alikes, with this part 85.4 %
#: (two seeds, 5 passes); of cut ones 75.2 and 74.8 %.
_CUT, _CUT_BY = 0.3, 0.2
#: Weight of the contrast of single residues, and residues of a batch that it takes.
_CONTRAST, _CONTRASTED = 0.05, 1024


def fit_residue_head(
    stage: ResidueStage,
    pairs: Pairs,
    validation: Pairs | None,
    seed: int,
    report: Callable[[str], None],
    *,
    epochs: int = EPOCHS,
) -> ResidueHead | None:
    """Train a head on hard negatives, from the stage's own rows.

    With validation pairs, the best epoch has the highest mean reciprocal rank of a sequence's own
    structure among its look-alikes. Ctrl-C stops training and keeps the best epoch so far.

    Parameters
    ----------
    stage : ResidueStage
        The stage that training starts from.
    pairs, validation : Pairs
        The pairs to train on; the pairs to validate on, or None. Their inputs give residues.
    seed : int
        Chooses the order, the cuts and the starting values.
    report : callable
        Receives a line per epoch.
    epochs : int
        Passes over the pairs that have look-alikes.

    Returns
    -------
    ResidueHead or None
        None if there are too few pairs, if no epoch was better than the stage, or if Ctrl-C came
        before the end of the first one.

    Raises
    ------
    ModelError
        Training diverged.
    """
    generator = np.random.default_rng(seed)
    history: list[float] = []
    best: ResidueHead | None = None
    try:
        training = _Examples.of(stage, pairs, _PAIRS, _LEAST_PAIRS, generator)
        if training is None:
            warnings.warn(
                f"the residue head: fewer than {_LEAST_PAIRS} pairs with residues, so none was "
                "trained; fit on more proteins",
                stacklevel=4,
            )
            return None
        network = _Network(stage, training.scales(), generator)
        score = _validate_on(stage, validation, generator)
        at_start = best_score = -math.inf if score is None else score(network)
        if score is not None:
            report(f"residue head: validation MRR {at_start:.4f} without it")
        for epoch, loss in enumerate(_epochs(network, training, epochs, generator), start=1):
            line = f"residue head, epoch {epoch}: loss {loss:.4f}"
            of_training = {"epochs": epoch, "pairs": len(training.pairs), "cut": _CUT}
            facts = {**of_training, "without": None, "best": None}
            if score is None:
                best = network.head(facts)
            else:
                history.append(score(network))
                line += f", validation MRR {history[-1]:.4f}"
                if history[-1] > best_score:
                    best_score = history[-1]
                    best = network.head({**facts, "without": at_start, "best": best_score})
            report(line)
        if best is None:
            warnings.warn(
                "the residue head: it is no better on the validation pairs than none, so it is "
                "left out",
                stacklevel=4,
            )
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user: the best so far is kept.", stacklevel=3)
    return best


class _Network(nn.Module):
    """The head while it is trained; its parameters are those of ``ResidueHead``."""

    def __init__(
        self,
        stage: ResidueStage,
        scales: Mapping[Modality, Float32],
        generator: np.random.Generator,
    ) -> None:
        super().__init__()
        r = stage.correlations.astype(np.float64)
        self.sides = nn.ModuleDict()
        for modality in MODALITIES:
            mean = stage.means[modality]
            random = generator.normal(size=(len(mean), _HIDDEN)) / len(mean) ** 0.5
            start = {
                "mean": mean,
                "projection": stage.projections[modality] * np.sqrt(r / (1 - r**2)),
                "inner": random / scales[modality][:, None],
                "bias": np.zeros(_HIDDEN),
                "outer": np.zeros(((2 * REACH + 1) * _HIDDEN, len(r) + 1)),
                "weight": r / 2,
            }
            self.sides[modality] = nn.ParameterDict(
                {
                    name: nn.Parameter(torch.tensor(value, dtype=torch.float32), name != "mean")
                    for name, value in start.items()
                }
            )
        self.constant = nn.Parameter(torch.tensor(-np.log1p(-(r**2)).sum() / 2).float())
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(_SHARPNESSES[0])))

    def parts(self) -> list[dict[str, Any]]:
        """Return the parameters by their learning rates, for an optimiser."""
        new = [self.log_sharpness]
        fitted = [self.constant]  # by the stage
        for side in self.sides.values():
            new += [side[name] for name in ("inner", "bias", "outer")]  # type: ignore[index]
            fitted += [side[name] for name in ("projection", "weight")]  # type: ignore[index]
        rates = (new, _LEARNING_RATE), (fitted, _FITTED_RATE)
        return [{"params": params, "lr": rate, "highest": rate} for params, rate in rates]

    def rows(self, modality: Modality, proteins: Sequence[Float32]) -> Tensor:
        """Return the (R, k + 2) rows of the embeddings of some proteins, packed."""
        values = torch.from_numpy(np.concatenate(proteins))
        neighbours = neighbours_of([len(rows) for rows in proteins])
        parameters = dict(self.sides[modality].items())  # type: ignore[operator]
        coordinates, alone = head_rows(values, parameters, neighbours)
        last = [alone + self.constant / 2, torch.ones_like(alone)]
        if modality == "structure":
            last.reverse()
        return torch.cat([coordinates, torch.stack(last, dim=1)], dim=1)

    def head(self, facts: Mapping[str, Any]) -> ResidueHead:
        """Return a copy of what was trained so far."""
        parameters: dict[Modality, dict[str, Float32]] = {
            modality: {
                name: value.detach().numpy().copy()
                for name, value in self.sides[modality].items()  # type: ignore[operator]
            }
            for modality in MODALITIES
        }
        constant = float(self.constant.detach())
        return ResidueHead(parameters, constant, {"hidden": _HIDDEN, **facts})


class _Examples:
    """Pairs of proteins that are not too long, and the look-alikes of each.

    Attributes
    ----------
    pairs : Pairs
        n pairs.
    alike : (n, m) int64
        For each pair others, those first whose structures its sequence fits best.
    hard : (n,) bool
        Whether the best of these scores at least ``_HARD`` of what the pair itself scores.
    """

    def __init__(self, stage: ResidueStage, pairs: Pairs) -> None:
        self.pairs = pairs
        rows = {
            modality: Ragged.pack(
                [
                    stage.plain_rows(modality, each).astype(np.float16)
                    for block in pairs.inputs.blocks(modality, pairs.positions)
                    for each in block
                ]
            )
            for modality in MODALITIES
        }
        nearest = _nearest(rows, pairs.items)
        self.alike = np.empty((len(pairs), min(_ALIKE, nearest.shape[1])), dtype=np.int64)
        self.hard = np.empty(len(pairs), dtype=np.bool_)
        for pair, others in enumerate(nearest):
            targets = Ragged.pack([rows["structure"][other] for other in (*others, pair)])
            scores, _ = diagonal_scores(rows["sequence"][pair].astype(np.float32), targets)
            order = np.argsort(-scores[:-1], kind="stable")
            self.alike[pair] = others[order[: self.alike.shape[1]]]
            self.hard[pair] = scores[order[0]] > _HARD * scores[-1]

    @classmethod
    def of(
        cls,
        stage: ResidueStage,
        pairs: Pairs,
        most: int,
        least: int,
        generator: np.random.Generator,
    ) -> _Examples | None:
        """Draw at most ``most`` of the pairs; return None if fewer than ``least`` are short."""
        short = np.ones(len(pairs), dtype=np.bool_)
        for modality in MODALITIES:
            short &= pairs.inputs.lengths(modality)[pairs.positions] <= _LONGEST
        drawn = generator.permutation(np.flatnonzero(short))[:most]
        return None if len(drawn) < least else cls(stage, pairs.select(np.sort(drawn)))

    def embeddings(self, modality: Modality, indices: Sequence[int] | Int64) -> list[Float32]:
        """Return the (L, D) float32 embeddings of some pairs."""
        positions = self.pairs.positions[np.asarray(indices)]
        return [each.astype(np.float32) for each in self.pairs.inputs.rows(modality, positions)]

    def blocks(self, modality: Modality, indices: Int64) -> Iterator[list[Float32]]:
        """Yield what ``embeddings`` returns, of a few pairs at a time."""
        positions = self.pairs.positions[indices]
        for block in self.pairs.inputs.blocks(modality, positions, FEW_ELEMENTS):
            yield [each.astype(np.float32) for each in block]

    def scales(self) -> dict[Modality, Float32]:
        """Return the (D,) standard deviations of the embeddings, of some pairs; never 0."""
        some = np.linspace(0, len(self.pairs) - 1, min(len(self.pairs), 200)).astype(np.int64)
        return {modality: _scale(self.blocks(modality, some)) for modality in MODALITIES}

    def groups(self, generator: np.random.Generator) -> Iterator[Int64]:
        """Yield groups in which each pair that has a hard look-alike occurs at least once."""
        seen = ~self.hard if self.hard.any() else np.zeros_like(self.hard)
        for pair in generator.permutation(len(self.pairs)):
            if not seen[pair]:
                others = generator.permutation(self.alike[pair])
                others = others[np.argsort(seen[others], kind="stable")][: _GROUP - 1]
                group = np.concatenate([[pair], others])
                seen[group] = True
                yield group


def _scale(blocks: Iterator[list[Float32]]) -> Float32:
    """Return the (D,) standard deviations of all rows, 1 in place of 0."""
    count, first, total, squares = 0, np.zeros(1), np.zeros(1), np.zeros(1)
    for block in blocks:
        rows = np.concatenate(block, dtype=np.float64)
        if not count:
            first = rows[0].copy()  # taken off, so that what is constant becomes 0
        rows -= first
        count += len(rows)
        total, squares = total + rows.sum(axis=0), squares + np.square(rows).sum(axis=0)
    scale = np.sqrt(np.maximum(squares / count - np.square(total / count), 0))
    scale[scale == 0] = 1
    return scale.astype(np.float32)


def _nearest(rows: Mapping[Modality, Ragged], items: Int64) -> Int64:
    """Return (n, m) other pairs with the most similar mean rows, most similar first.

    Pairs that share the sequence or the structure are left out, unless nothing else is left.
    """
    means = np.concatenate(
        [
            np.stack([each[:, :-2].mean(axis=0, dtype=np.float32) for each in rows[modality]])
            for modality in MODALITIES
        ],
        axis=1,
    )
    means -= means.mean(axis=0)
    means /= np.linalg.norm(means, axis=1, keepdims=True) + np.finfo(np.float32).tiny
    count = min(_NEAREST, len(means) - 1)
    nearest = np.empty((len(means), count), dtype=np.int64)
    for first in range(0, len(means), _AT_ONCE):
        cosines = means[first : first + _AT_ONCE] @ means.T
        for pair, row in enumerate(cosines, start=first):
            row[(items == items[pair]).any(axis=1)] = -2
            row[pair] = -3
            nearest[pair] = np.argsort(-row, kind="stable")[:count]
    return nearest


def _epochs(
    network: _Network, examples: _Examples, epochs: int, generator: np.random.Generator
) -> Iterator[float]:
    """Train; yield the mean loss of each epoch."""
    optimiser = torch.optim.AdamW(network.parts(), weight_decay=_WEIGHT_DECAY)
    _set_sharpness(network, examples, generator)
    steps = 0
    for epoch in range(epochs):
        groups = list(examples.groups(generator))
        batches = [groups[first : first + _GROUPS] for first in range(0, len(groups), _GROUPS)]
        losses = []
        for number, batch in enumerate(batches):
            done = (epoch + number / len(batches)) / epochs
            steps += 1
            for settings in optimiser.param_groups:
                settings["lr"] = (
                    settings["highest"]
                    * min(1, steps / _WARM_UP)
                    * (0.5 + 0.5 * math.cos(math.pi * done))
                )
            optimiser.zero_grad()
            loss = _loss(network, examples, batch, generator)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise ModelError(
                    "training of the residue head diverged: the loss is NaN or infinite; fit "
                    "without it"
                )
        yield float(np.mean(losses))


def _set_sharpness(network: _Network, examples: _Examples, generator: np.random.Generator) -> None:
    """Set the sharpness with which the loss is lowest before training."""
    groups = list(examples.groups(generator))[: _TRIED * _GROUPS]
    losses = []
    seed = int(generator.integers(2**31))
    for sharpness in _SHARPNESSES:
        with torch.no_grad():
            network.log_sharpness.fill_(math.log(sharpness))
            losses.append(float(_loss(network, examples, groups, np.random.default_rng(seed))))
    with torch.no_grad():
        network.log_sharpness.fill_(math.log(_SHARPNESSES[int(np.argmin(losses))]))


def _loss(
    network: _Network, examples: _Examples, groups: list[Int64], generator: np.random.Generator
) -> Tensor:
    """Return the loss of a batch, 0-d."""
    pairs = examples.pairs
    wider = [
        np.concatenate([group, generator.integers(len(pairs), size=_RANDOM)]) for group in groups
    ]
    sequences = [
        _cut(each, generator) if generator.random() < _CUT else each
        for each in examples.embeddings("sequence", np.concatenate(groups))
    ]
    structures = examples.embeddings("structure", np.concatenate(wider))
    left, right = network.rows("sequence", sequences), network.rows("structure", structures)
    queries, targets = _packed(left, sequences), _packed(right, structures)
    first, second, counts = [], [], []
    query = target = 0
    for group, candidates in zip(groups, wider, strict=True):
        some = _part(queries, query, len(group)), _part(targets, target, len(candidates))
        _, offsets = diagonal_scores(*some)
        for i in range(len(group)):
            for j in range(len(candidates)):
                rows = _diagonal(some[0].lengths[i], some[1].lengths[j], int(offsets[i, j]))
                first.append(queries.offsets[query + i] + rows[0])
                second.append(targets.offsets[target + j] + rows[1])
                counts.append(len(rows[0]))
        query, target = query + len(group), target + len(candidates)
    one = torch.from_numpy(np.concatenate(first))
    other = torch.from_numpy(np.concatenate(second))
    products = (left.index_select(0, one) * right.index_select(0, other)).sum(dim=1)
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    scores = torch.zeros(len(counts)).index_add(0, owner, products) * network.log_sharpness.exp()
    loss = torch.zeros(())
    own: list[Bool] = []
    done = 0
    for group, candidates in zip(groups, wider, strict=True):
        matrix = scores[done : done + len(group) * len(candidates)].view(len(group), -1)
        done += matrix.numel()
        partner = np.eye(*matrix.shape, dtype=np.bool_)
        own.append(np.repeat(partner.ravel(), counts[done - matrix.numel() : done]))
        items = pairs.items[group][:, None] == pairs.items[candidates]
        shared = torch.from_numpy(items.any(axis=2) & ~partner)
        matrix = matrix.masked_fill(shared, -torch.inf)
        answer = torch.arange(len(group))
        loss = loss + functional.cross_entropy(matrix, answer, reduction="sum")
        square = matrix[:, : len(group)].T
        loss = loss + functional.cross_entropy(square, answer, reduction="sum")
    loss = loss / (2 * len(sequences))
    drawn = generator.permutation(np.flatnonzero(np.concatenate(own)))[:_CONTRASTED]
    logits = left.index_select(0, one[drawn]) @ right.index_select(0, other[drawn]).T
    answer = torch.arange(len(drawn))
    contrast = functional.cross_entropy(logits, answer) + functional.cross_entropy(logits.T, answer)
    return loss + _CONTRAST * contrast / 2


def _cut(rows: Float32, generator: np.random.Generator) -> Float32:
    """Return the rows without some at each end; at least one is left."""
    first, last = generator.integers(0, int(_CUT_BY * len(rows)), size=2, endpoint=True)
    return rows[first : len(rows) - last]


def _packed(rows: Tensor, proteins: Sequence[Float32]) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in proteins])]).astype(np.int64)
    return Ragged(rows.detach().numpy(), offsets)


def _part(rows: Ragged, first: int, count: int) -> Ragged:
    offsets = rows.offsets[first : first + count + 1]
    return Ragged(rows.values[offsets[0] : offsets[-1]], offsets - offsets[0])


def _diagonal(n_query: int, n_target: int, offset: int) -> tuple[Int64, Int64]:
    """Return the rows of the query and of the target that lie on a diagonal."""
    rows = np.arange(max(0, -offset), min(n_query, n_target - offset))
    return rows, rows + offset


def _validate_on(
    stage: ResidueStage, pairs: Pairs | None, generator: np.random.Generator
) -> Callable[[_Network], float] | None:
    """Return a function that gives a network's mean reciprocal rank, of whole and cut sequences."""
    if pairs is None:
        return None
    found = _Examples.of(stage, pairs, _VALIDATION_PAIRS, MIN_VALIDATION_PAIRS, generator)
    if found is None:
        return None
    examples = found
    everyone = np.arange(len(examples.pairs))
    seed = int(generator.integers(2**31))

    def score(network: _Network) -> float:
        cuts = np.random.default_rng(seed)
        whole: list[Float32] = []
        cut: list[Float32] = []
        targets: list[Float32] = []
        with torch.inference_mode():
            for block in examples.blocks("sequence", everyone):
                whole += _packed(network.rows("sequence", block), block)
                block = [_cut(each, cuts) for each in block]
                cut += _packed(network.rows("sequence", block), block)
            for block in examples.blocks("structure", everyone):
                targets += _packed(network.rows("structure", block), block)
        ranks = []
        for number, query in enumerate([*whole, *cut]):
            pair = number % len(everyone)
            candidates = [targets[other] for other in (pair, *examples.alike[pair])]
            scores, _ = diagonal_scores(query, Ragged.pack(candidates))
            ranks.append(1 + np.count_nonzero(scores[1:] >= scores[0]))
        return float(np.mean(1 / np.array(ranks)))

    return score
