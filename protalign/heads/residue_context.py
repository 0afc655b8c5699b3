"""Training of the residue context, and the correlations of what it finds.

The network learns to tell a residue's structure from its sequence around it: the canonical
coordinates of the structure's residue. What it tells stands beside the sequence's own coordinates
in a second canonical correlation analysis, so that the network cannot lose what a linear map knows.
Both see a bounded number of residues, and so take no longer for a larger store.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from protalign.core.arrays import Float16, Float32, Int64
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged, blocks
from protalign.heads.inputs import PairedResidues
from protalign.heads.pairs import Pairs, split_validation
from protalign.residues import PairSums, ResidueStage
from protalign.residues.cca import LARGEST
from protalign.residues.context import (
    LIMIT,
    REACH,
    ResidueContext,
    hidden_numbers,
    limited,
)
from protalign.residues.head import ROWS_AT_ONCE, neighbours_of

#: Coordinates of the plain analysis that the network reads, and that are analysed again.
COORDINATES = 96
#: Coordinates of a structure's residue that it learns to tell.
_TOLD = 48
#: Hidden numbers of a layer.
_HIDDEN = 256
#: Structures' residues that it is trained on, at most: the more, the longer. With fewer than the
#: least there is none: few proteins would be learned by heart. With 280,000 it found more relatives
#: than without (CATH's domains, ESM2-8M).
_MOST_RESIDUES, LEAST_RESIDUES = 1_500_000, 200_000
#: Residues of a protein that it is trained on, at most, and pairs that are looked at at once.
_LONGEST, _AT_ONCE = 2000, 4096
#: Part of the proteins that it is not trained on: it must tell these better than a linear map.
_HELD_OUT = 0.05
#: Passes over the proteins, and proteins of a batch.
_EPOCHS, _BATCH = 3, 12
_LEARNING_RATE, _WEIGHT_DECAY, _WARM_UP = 2e-3, 0.01, 0.3
#: The warning names the line that called ``ProtAlignEstimator.fit``.
_CALL_OF_FIT = 5


def fit_residue_context(
    sums: PairSums,
    pairs: Pairs,
    components: int,
    generator: np.random.Generator,
    report: Callable[[str], None],
) -> ResidueContext | None:
    """Train a context on some pairs, and analyse what it tells of them.

    Parameters
    ----------
    sums : PairSums
        The sums over all paired residues, without a network.
    pairs : Pairs
        These pairs. Their inputs give residues.
    components : int
        k, the coordinates to keep.
    generator : numpy.random.Generator
        Chooses the pairs to train on, their order and the starting values.
    report : callable
        Receives a line per epoch, and one that says why there is none.

    Returns
    -------
    ResidueContext or None
        None if there are fewer than ``LEAST_RESIDUES`` paired residues, if it tells the structures
        of held-out pairs no better than a linear map does, or if Ctrl-C came.
    """
    try:
        drawn = None if sums.n < LEAST_RESIDUES else _drawn(pairs, generator)
        parts = (None, None) if drawn is None else split_validation(drawn, _HELD_OUT, generator)
        training, validation = parts
        if drawn is None or training is None or validation is None:
            report(
                "residue context: none, since it needs "
                f"{LEAST_RESIDUES:,} paired residues of different proteins that are not too long"
            )
            return None
        base = sums.stage(COORDINATES, None)
        context = _trained(base, drawn, training, validation, components, generator, report)
    except KeyboardInterrupt:
        message = "Training interrupted by user: no residue context is kept."
        warnings.warn(message, stacklevel=_CALL_OF_FIT)
        return None
    if context is None:
        report(
            "residue context: none, since it tells held-out proteins no better than a linear map"
        )
    return context


def _drawn(pairs: Pairs, generator: np.random.Generator) -> Pairs | None:
    """Draw pairs whose residues are paired, until there are enough; None if there are too few."""
    inputs = pairs.inputs
    order = generator.permutation(len(pairs))
    chosen: list[Int64] = []
    total = 0
    for first in range(0, len(order), _AT_ONCE):
        some = np.sort(order[first : first + _AT_ONCE])
        positions = pairs.positions[some]
        sequence, structure = (inputs.lengths(modality)[positions] for modality in MODALITIES)
        paired = [rows is not None for rows in inputs.sequence_rows(positions)]
        usable = np.array(paired) & (sequence <= _LONGEST) & (structure <= _LONGEST)
        residues = np.cumsum(np.where(usable, structure, 0)) + total
        usable &= residues <= _MOST_RESIDUES
        chosen.append(some[usable])
        total = int(residues[-1])
        if total > _MOST_RESIDUES:
            break
    kept = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    if inputs.lengths("structure")[pairs.positions[kept]].sum() < LEAST_RESIDUES:
        return None
    return pairs.select(kept)


def _trained(
    base: ResidueStage,
    drawn: Pairs,
    training: Pairs,
    validation: Pairs,
    components: int,
    generator: np.random.Generator,
    report: Callable[[str], None],
) -> ResidueContext | None:
    """Train on some of the drawn pairs, and analyse all of these; None if it is no gain."""
    proteins, held_out = _Proteins.read_of(base, training), _Proteins.read_of(base, validation)
    network = _Network(len(base.correlations), proteins.told.shape[1], generator)
    without = held_out.error(lambda some: _linear(base, some))
    error = math.inf
    for epoch in range(1, _EPOCHS + 1):
        network.train_on(proteins, epoch, generator)
        error = held_out.error(network.tell)
        report(
            f"residue context, epoch {epoch}: {error:.1%} of the structures' coordinates are "
            f"unexplained for held-out sequences, {without:.1%} without it"
        )
    if not error < without:  # it may be NaN
        return None
    facts = {
        "residues": len(proteins.told),
        "pairs": len(proteins),
        "epochs": _EPOCHS,
        "error": error,
        "without": without,
    }
    return _analysed(base, network, drawn, components, facts)


class _Proteins:
    """What the network reads of some proteins, and learns to tell; float16, in memory.

    Attributes
    ----------
    read : Ragged of (R, C)
        Coordinates of the sequences' residues.
    told : (P, T)
        Coordinates of the structures' residues, of one protein after another.
    rows : (P,) int64
        The sequence's residue, in its protein, that each belongs to.
    counts : (n,) int64
        Structures' residues of each protein.
    """

    def __init__(self, read: Ragged, told: Float16, rows: Int64, counts: Int64) -> None:
        self.read, self.told, self.rows, self.counts = read, told, rows, counts
        self._first = np.concatenate([[0], np.cumsum(counts)])

    @classmethod
    def read_of(cls, base: ResidueStage, pairs: Pairs) -> _Proteins:
        """Read those of some pairs, at least one, whose residues are paired."""
        read, lengths, told, rows, counts = [], [], [], [], []
        for block in pairs.inputs.paired_residues(pairs.positions):
            for sequence, structure, paired in block.proteins():
                coordinates = limited(_coordinates(base, "sequence", sequence.values), LIMIT)
                read.append(coordinates.astype(np.float16))
                lengths.append(sequence.lengths)
                of_structure = limited(_coordinates(base, "structure", structure.values), LIMIT)
                told.append(of_structure[:, :_TOLD].astype(np.float16))
                rows.append(paired - np.repeat(sequence.offsets[:-1], structure.lengths))
                counts.append(structure.lengths)
        offsets = np.cumsum(np.concatenate([[0], *lengths]))
        packed = Ragged(np.concatenate(read), offsets)
        return cls(packed, np.concatenate(told), np.concatenate(rows), np.concatenate(counts))

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, places: Int64) -> _Proteins:
        """Return some, at least one, in their order."""
        parts = [slice(self._first[i], self._first[i + 1]) for i in places.tolist()]
        told, rows = (np.concatenate([a[part] for part in parts]) for a in (self.told, self.rows))
        return _Proteins(self.read.take(places), told, rows, self.counts[places])

    @property
    def residues(self) -> Int64:
        """(P,) int64: the row of ``read`` that each row of ``told`` belongs to."""
        return self.rows + np.repeat(self.read.offsets[:-1], self.counts)

    def error(self, tell: Callable[[_Proteins], Float32]) -> float:
        """Return the share of the coordinates' mean square that is told wrongly."""
        wrong = square = 0.0
        for first in range(0, len(self), _BATCH):
            some = self.take(np.arange(first, min(first + _BATCH, len(self))))
            told = some.told.astype(np.float64)
            wrong += float(np.square(tell(some) - told).sum())
            square += float(np.square(told).sum())
        return wrong / square if square else math.inf


class _Network(nn.Module):
    """The network while it is trained; its parameters are those of ``ResidueContext``."""

    def __init__(self, read: int, told: int, generator: np.random.Generator) -> None:
        super().__init__()

        def random(*shape: int) -> nn.Parameter:
            values = generator.normal(size=shape) / math.sqrt(shape[0])
            return nn.Parameter(torch.tensor(values, dtype=torch.float32))

        self.named = nn.ParameterDict(
            {
                "inner": random((2 * REACH + 1) * read, _HIDDEN),
                "inner_bias": nn.Parameter(torch.zeros(_HIDDEN)),
                "middle": random(_HIDDEN, _HIDDEN),
                "middle_bias": nn.Parameter(torch.zeros(_HIDDEN)),
                "outer": nn.Parameter(torch.zeros(_HIDDEN, told)),
                "shift": nn.Parameter(torch.zeros(told)),
            }
        )
        self._optimiser = torch.optim.AdamW(
            self.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY
        )

    def told(self, read: Tensor, lengths: list[int]) -> Tensor:
        """Return what is told of the residues of some proteins: (R, C) -> (R, T)."""
        named = dict(self.named.items())
        hidden = hidden_numbers(read, named, neighbours_of(lengths, REACH))
        return torch.addmm(named["shift"], hidden, named["outer"])

    def tell(self, proteins: _Proteins) -> Float32:
        """Return what is told of each residue in ``proteins.told``."""
        with torch.inference_mode():
            told: Float32 = self._told_of(proteins).numpy()
        return told

    def _told_of(self, proteins: _Proteins) -> Tensor:
        read = torch.from_numpy(proteins.read.values.astype(np.float32))
        told = self.told(read, proteins.read.lengths.tolist())
        return told[torch.from_numpy(proteins.residues)]

    def train_on(self, proteins: _Proteins, epoch: int, generator: np.random.Generator) -> None:
        """Pass over some proteins once, in a random order."""
        order = generator.permutation(len(proteins))
        batches = [order[first : first + _BATCH] for first in range(0, len(order), _BATCH)]
        for number, batch in enumerate(batches):
            done = (epoch - 1 + number / len(batches)) / _EPOCHS
            for settings in self._optimiser.param_groups:
                settings["lr"] = _LEARNING_RATE * _part_of_rate(done)
            some = proteins.take(batch)
            self._optimiser.zero_grad()
            right = torch.from_numpy(some.told.astype(np.float32))
            loss = (self._told_of(some) - right).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()

    def arrays(self) -> dict[str, Float32]:
        """Return a copy of the parameters."""
        return {name: value.detach().numpy().copy() for name, value in self.named.items()}


def _part_of_rate(done: float) -> float:
    """Return the part of the learning rate: up in a line, and down along a cosine."""
    if done < _WARM_UP:
        return (done + 0.01) / (_WARM_UP + 0.01)
    return 0.5 + 0.5 * math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))


def _coordinates(base: ResidueStage, modality: Modality, embeddings: Float32) -> Float32:
    """Return the plain analysis' coordinates of some residues."""
    values = np.asarray(embeddings, dtype=np.float32)
    centred = values - base.means[modality]
    coordinates: Float32 = np.matmul(centred, base.projections[modality], dtype=np.float32)
    return coordinates


def _linear(base: ResidueStage, proteins: _Proteins) -> Float32:
    """Return what a linear map tells of the structures: coordinates times their correlations."""
    told = proteins.told.shape[1]
    read = proteins.read.values[proteins.residues, :told].astype(np.float32)
    linear: Float32 = read * base.correlations[:told]
    return linear


@dataclass(frozen=True, eq=False)
class _Told:
    """Paired residues for the second analysis, read anew in each iteration.

    Iterating yields (R, C + T) coordinates of the sequence and what the network tells beside them,
    and (R, C) coordinates of the structure.
    """

    block: PairedResidues
    base: ResidueStage
    network: _Network

    def __iter__(self) -> Iterator[tuple[Float32, Float32]]:
        for sequence, structure, rows in self.block.proteins():
            own = _coordinates(self.base, "sequence", sequence.values)
            both = np.concatenate([own, self._told(own, sequence)], axis=1)
            yield both[rows], _coordinates(self.base, "structure", structure.values)

    def _told(self, coordinates: Float32, sequence: Ragged) -> Float32:
        """Return what the network tells of some sequences, a few residues at a time."""
        told = []
        for part in blocks(sequence.lengths, ROWS_AT_ONCE):
            some = coordinates[sequence.offsets[part.start] : sequence.offsets[part.stop]]
            read = torch.from_numpy(limited(some, LIMIT))
            with torch.inference_mode():
                told.append(self.network.told(read, sequence.lengths[part].tolist()).numpy())
        return np.concatenate(told)


def _analysed(
    base: ResidueStage,
    network: _Network,
    pairs: Pairs,
    components: int,
    facts: Mapping[str, object],
) -> ResidueContext | None:
    """Analyse some pairs with the network; return it and the maps as one context."""
    arrays = network.arrays()
    read, told = len(base.correlations), len(arrays["shift"])
    sums = PairSums(read + told, read)
    for block in pairs.inputs.paired_residues(pairs.positions):
        sums.add_parts(_Told(block, base, network))
    try:
        stage = sums.stage(components, LARGEST)
    except InputError:  # nothing of it varies
        return None
    # Both linear maps, one after the other, are one: x = (z - mean) projection + h outer + shift.
    own, of_network = np.split(stage.projections["sequence"], [read])
    mean = stage.means["sequence"] @ stage.projections["sequence"]
    sequence = {
        "mean": base.means["sequence"],
        "projection": base.projections["sequence"] @ own,
        "read": base.projections["sequence"],
        **{name: arrays[name] for name in ("inner", "inner_bias", "middle", "middle_bias")},
        "outer": arrays["outer"] @ of_network,
        "shift": arrays["shift"] @ of_network - mean,
    }
    second = stage.projections["structure"]
    # A structure has no shift: the mean of its coordinates becomes that of its embeddings.
    first = base.projections["structure"]
    away = np.linalg.lstsq(first.T, stage.means["structure"], rcond=None)[0]
    structure = {
        "mean": base.means["structure"] + away.astype(np.float32),
        "projection": first @ second,
    }
    parameters: dict[Modality, dict[str, Float32]] = {
        "sequence": sequence,
        "structure": structure,
    }
    facts = {"hidden": _HIDDEN, "read": read, **facts}
    return ResidueContext(parameters, stage.correlations, stage.largest, facts)
