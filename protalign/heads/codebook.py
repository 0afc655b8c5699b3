"""Codebook pooling: how often each of K residue words occurs in a protein, in E numbers.

The residues of both encoders are brought into one space, in which a residue's sequence embedding
lies near its structure embedding (canonical correlation analysis of residues that have both).
Words, the centres of structure residues there, divide it. A second, smaller set of words divides
the space of neighbourhoods: a residue's mean with those beside it, times a constant. A residue is
shared among the words near it, and so is its neighbourhood among its own:

    p(word | residue) = softmax(w . x - |w|^2 / 2)      times a sharpness, over the words of a kind

and a protein is the square root of the mean of p over its residues: the words' frequencies, with
frequent ones damped. They are whitened with a ridge, and a linear layer, which begins as a
canonical correlation analysis of whole proteins, makes E numbers of them. That layer alone is
trained with the contrastive loss. Everything before it is computed, in one pass for each step.
A trained head keeps the whitening and the layer as one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from protalign.core.arrays import Float32
from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES
from protalign.heads.head import PoolingHead
from protalign.heads.kernels.batch import ProteinBatch, batch_of
from protalign.heads.model import not_finite
from protalign.heads.pairs import Pairs
from protalign.residues import PairSums, ResidueStage

#: The words of residues and of neighbourhoods; K is their sum. Without the latter, Recall@1 of own
#: structures is 5 percentage points lower. 1,024 of them would gain 1 or 2 more.
WORDS, AROUND = 1024, 384
#: Residues of a neighbourhood on each side, and what its mean is multiplied by, so that it is about
#: as long as a residue. Recall@1 is 2 points lower with 5 on each side; with 2 it is the same.
_BESIDE, _SPREAD = 3, 1.75
#: Coordinates of the space of residues; of an encoder with fewer numbers the rest are 0.
COORDINATES = 48
#: The softmax's factor. Softer or harder words both find fewer own structures among proteins of
#: new topologies (Recall@1 at 0.25, 0.5, 1 and 2: 54, 56, 51, 40 %).
_SHARPNESS = 0.4
#: Added to the covariances of words: this share of their mean eigenvalue.
_RIDGE = 0.3
#: Pairs that the words and the first linear layer are computed from, at most.
_PAIRS = 10_000
#: Structure residues that the words are the centres of, at most, and the rounds of k-means.
_RESIDUES, _ROUNDS = 100_000, 10
#: Parts of a protein that training may leave out.
PARTS = 8
#: Rows that are shared among the words at once: 16 MB.
_ROWS_AT_ONCE = 4096


class CodebookHead(PoolingHead):
    """The frequencies of residue words, whitened, through a linear layer, to unit length.

    New heads have random parameters, and are of little use until ``initialise`` has computed them.
    A protein's frequencies are the same to the last bit in every batch.

    The parameters are those of ``PoolingHead``; ``n_heads`` is not used.

    Examples
    --------
    >>> from protalign.core.ragged import Ragged
    >>> proteins = Ragged.pack([np.ones((50, 20), np.float32), np.ones((80, 20), np.float32)])
    >>> head = CodebookHead(input_dim=20, embed_dim=8)
    >>> head(batch_of(proteins, torch.device("cpu"))).shape
    torch.Size([2, 8])
    """

    attends, wants_means, summarises = False, False, True
    # The mean embedding, the way into the space, the words of residues and of neighbourhoods, the
    # mean roots; and their whitening while the head is trained.
    mean: Tensor
    projection: Tensor
    words: Tensor
    around: Tensor
    root: Tensor
    whitening: Tensor | None

    def __init__(self, input_dim: int, embed_dim: int = 128, n_heads: int = 0) -> None:
        super().__init__(input_dim, embed_dim, 0)
        self.embed_dim = embed_dim
        self.register_buffer("mean", torch.zeros(input_dim))
        projection = nn.init.normal_(torch.empty(input_dim, COORDINATES), std=input_dim**-0.5)
        self.register_buffer("projection", projection)
        self.register_buffer("words", nn.init.normal_(torch.empty(WORDS, COORDINATES)))
        self.register_buffer("around", nn.init.normal_(torch.empty(AROUND, COORDINATES)))
        self.register_buffer("root", torch.zeros(WORDS + AROUND))
        self.register_buffer("whitening", None, persistent=False)
        self.reduction = nn.Linear(WORDS + AROUND, embed_dim)

    def forward(self, batch: ProteinBatch) -> Tensor:
        """Return (n, E) unit-length vectors in the parameters' dtype."""
        return self._vectors(self.frequencies(batch).sqrt())

    def summary(self, batch: ProteinBatch) -> Tensor:
        """Return (n, PARTS, K) float16 counts of the words in parts of each protein.

        The sum over parts and words of residues is ``WORDS``, so that float16 holds them with
        little loss; and so it is for neighbourhoods, which may reach into the next part.
        """
        proteins = [
            torch.stack(
                [
                    torch.cat([_counts(*part) for part in zip(parts, self._codes, strict=True)])
                    for parts in zip(
                        *(each.tensor_split(PARTS) for each in self._places(rows)), strict=True
                    )
                ]
            )
            * (WORDS / len(rows))
            for rows in batch.proteins
        ]
        return torch.stack(proteins).half()

    def of_summary(self, summary: Tensor) -> Tensor:
        """Return (n, E) unit-length vectors of the words in parts of proteins."""
        counts = summary.to(self.root.dtype).sum(dim=1)
        total = counts[:, :WORDS].sum(dim=1, keepdim=True).clamp(min=torch.finfo(counts.dtype).tiny)
        return self._vectors((counts / total).sqrt())

    def frequencies(self, batch: ProteinBatch) -> Tensor:
        """Return (n, K) frequencies of the words, whose sum over each kind of words is 1."""
        return torch.stack(
            [
                torch.cat(
                    [_counts(*kind) for kind in zip(self._places(rows), self._codes, strict=True)]
                )
                / len(rows)
                for rows in batch.proteins
            ]
        )

    def coordinates(self, rows: Tensor) -> Tensor:
        """Return the (R, COORDINATES) coordinates of (R, D) residue embeddings."""
        return (rows.to(self.mean.dtype) - self.mean) @ self.projection

    @property
    def _codes(self) -> tuple[Tensor, Tensor]:
        return self.words, self.around

    def _places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (L, COORDINATES) places of a protein's residues, and of their neighbourhoods."""
        coordinates = self.coordinates(rows)
        return coordinates, neighbourhoods(coordinates)

    def _vectors(self, roots: Tensor) -> Tensor:
        """Return the (n, E) vectors of (n, K) square roots of frequencies."""
        reduced = functional.linear(roots - self.root, self._weight(), self.reduction.bias)
        return functional.normalize(reduced, dim=-1)

    def _weight(self) -> Tensor:
        """Return the (E, K) matrix of the whitening and the linear layer."""
        weight = self.reduction.weight
        return weight if self.whitening is None else weight @ self.whitening.T

    @torch.no_grad()
    def finish(self) -> None:
        """Make one matrix of the whitening and the trained layer; see ``PoolingHead.finish``."""
        self.reduction.weight.copy_(self._weight())
        self.whitening = None

    def is_earlier(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Return whether a codebook has other words than now; see ``PoolingHead.is_earlier``.

        Earlier ones had no words of neighbourhoods, or more, and kept the whitening.
        """
        if not shapes.keys() >= {"words", "root"}:
            return False
        words = {name: tuple(getattr(self, name).shape) for name in ("words", "around")}
        return "whitening" in shapes or any(shapes.get(name) != words[name] for name in words)

    @classmethod
    def initialise(
        cls,
        sequence: CodebookHead,
        structure: CodebookHead,
        pairs: Pairs,
        generator: np.random.Generator,
        report: Callable[[str], None],
    ) -> None:
        """Compute the words, and the linear layer to start from; see ``PoolingHead.initialise``.

        Raises
        ------
        InputError
            There are too few residues of which both embeddings are known.
        """
        heads = sequence, structure
        if len(pairs) > _PAIRS:
            drawn = generator.choice(len(pairs), _PAIRS, replace=False)
            pairs = pairs.select(np.sort(drawn))
        stage = _stage(pairs)
        for modality, head in zip(MODALITIES, heads, strict=True):
            scale = np.sqrt(stage.correlations / (1 - stage.correlations**2))
            _copy(head.mean, stage.means[modality])
            head.projection.zero_()
            _copy(head.projection[:, : len(scale)], stage.projections[modality] * scale)
        residues, beside = _structure_residues(structure, pairs, generator)
        words = _centres(residues, WORDS, generator)
        words_around = _centres(beside, AROUND, generator)
        for head in heads:
            _copy(head.words, words)
            _copy(head.around, words_around)
        report(f"{len(words) + len(words_around):,} words of {stage.n_residues:,} residues")
        first, second = (
            _roots(head, pairs, column)[pairs.items[:, column]] for column, head in enumerate(heads)
        )
        _reduce(sequence, structure, first, second)


def neighbourhoods(coordinates: Tensor) -> Tensor:
    """Return the (L, d) neighbourhoods of (L, d) residues: means, times a constant.

    A residue near an end has fewer beside it. Chains follow one another: heads do not know where
    one ends.
    """
    size = 2 * _BESIDE + 1
    means = functional.avg_pool1d(
        coordinates.T, size, stride=1, padding=_BESIDE, count_include_pad=False
    )
    return _SPREAD * means.T


def _counts(places: Tensor, words: Tensor) -> Tensor:
    """Return (K,): how often each word occurs at (L, d) places, which are shared among words."""
    bias = -0.5 * _SHARPNESS * (words**2).sum(dim=1)
    total = torch.zeros_like(bias)
    for part in torch.split(places, _ROWS_AT_ONCE):
        scores = torch.addmm(bias, part, words.T, alpha=_SHARPNESS)
        total += scores.softmax(dim=1).sum(dim=0)
    return total


def _stage(pairs: Pairs) -> ResidueStage:
    """Return the residues' common space; raise InputError if there are too few to compute it."""
    inputs = pairs.inputs
    widths = [inputs.dims[modality] for modality in MODALITIES]
    sums = PairSums(*widths)
    with np.errstate(invalid="ignore"):  # infinity is named below
        for block in inputs.paired_residues(pairs.positions):
            sums.add_parts(block)
    least = 2 * sum(widths)
    if sums.n < least:
        raise InputError(
            f'pooling="codebook": {sums.n:,} residues with both embeddings are too few for words',
            f'fit on proteins with {least:,} together, or with pooling="attention"',
        )
    try:
        return sums.stage(COORDINATES)
    except InputError as error:  # all embeddings of a modality are equal, or some are not finite
        for modality in MODALITIES:
            for position in pairs.positions:
                if not np.isfinite(inputs.rows(modality, np.array([position])).values).all():
                    raise not_finite(inputs, modality, np.array([position])) from None
        raise InputError('pooling="codebook": all embeddings are equal', error.advice) from None


def _structure_residues(
    head: CodebookHead, pairs: Pairs, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return (R, COORDINATES) of randomly drawn structure residues, and of their neighbourhoods.

    Both are on the CPU.
    """
    positions = pairs.positions_of_items(1)
    total = pairs.inputs.lengths("structure")[positions].sum()
    residues, beside = [], []
    for rows in pairs.inputs.blocks("structure", positions):
        for protein in batch_of(rows, head.mean.device).proteins:
            drawn = np.flatnonzero(generator.random(len(protein)) * total < _RESIDUES)
            places = torch.from_numpy(drawn).to(protein.device)
            coordinates = head.coordinates(protein)
            residues.append(coordinates[places].cpu())
            beside.append(neighbourhoods(coordinates)[places].cpu())
    return torch.cat(residues), torch.cat(beside)


def _centres(points: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """Return (count, d) centres of (n, d) points by k-means (Lloyd, 1982).

    A centre without points moves to a random point, so that it may divide a crowded place.
    """
    start = generator.choice(len(points), count, replace=len(points) < count)
    centres = points[torch.from_numpy(start)].clone()
    for _ in range(_ROUNDS):
        halves = 0.5 * (centres**2).sum(dim=1)
        nearest = torch.cat(
            [
                (part @ centres.T - halves).argmax(dim=1)
                for part in torch.split(points, _ROWS_AT_ONCE)
            ]
        )
        counts = torch.bincount(nearest, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = sums / counts.clamp(min=1)[:, None]
        empty = (counts == 0).nonzero()[:, 0]
        centres[empty] = points[torch.from_numpy(generator.integers(len(points), size=len(empty)))]
    return centres


def _roots(head: CodebookHead, pairs: Pairs, column: int) -> Float32:
    """Return the (u, K) roots of frequencies of the pairs' unique items of a modality."""
    blocks = pairs.inputs.blocks(MODALITIES[column], pairs.positions_of_items(column))
    with torch.no_grad():
        parts = [
            head.frequencies(batch_of(rows, head.mean.device)).sqrt().cpu().numpy()
            for rows in blocks
        ]
    return np.concatenate(parts)


def _reduce(
    sequence: CodebookHead, structure: CodebookHead, first: Float32, second: Float32
) -> None:
    """Set what comes after the roots by those of n pairs, (n, K) each.

    Canonical correlation analysis with a ridge: the linear layers begin as the singular vectors of
    the whitened roots' cross-covariance, each times its singular value.
    """
    x, scale_x, to_words_x = _whitened(first)
    y, scale_y, to_words_y = _whitened(second)
    left, correlations, right = np.linalg.svd(x.T @ y / len(x), full_matrices=False)
    kept = min(len(correlations), sequence.embed_dim)
    for head, roots, scale, to_words, vectors in (
        (sequence, first, scale_x, to_words_x, left.T),
        (structure, second, scale_y, to_words_y, right),
    ):
        _copy(head.root, roots.mean(axis=0))
        whitening = torch.as_tensor((to_words.T * scale) @ to_words)
        head.whitening = whitening.to(head.root)
        with torch.no_grad():
            head.reduction.weight.zero_()
            head.reduction.bias.zero_()
            layer = correlations[:kept, None] * vectors[:kept]
            _copy(head.reduction.weight[:kept], layer @ to_words)


def _whitened(roots: Float32) -> tuple[Float32, Float32, Float32]:
    """Whiten (n, F) roots; a ridge keeps the small principal components small.

    Returns
    -------
    components : (n, m) float32
        The whitened principal components, m = min(n, F).
    scale : (m,) float32
        What each component was multiplied by.
    to_words : (m, F) float32
        The components' directions, of unit length.
    """
    centred = roots - roots.mean(axis=0)
    if len(roots) > roots.shape[1]:  # five times quicker than the singular values of all rows
        squares, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
        variances = np.maximum(squares[::-1], 0).astype(np.float32) / len(roots)
        to_words = np.ascontiguousarray(vectors.T[::-1], dtype=np.float32)
    else:
        _, values, to_words = np.linalg.svd(centred, full_matrices=False)
        variances = values**2 / len(roots)
    ridge = _RIDGE * variances.sum() / roots.shape[1] + np.finfo(np.float32).tiny
    scale = 1 / np.sqrt(variances + ridge)
    return centred @ to_words.T * scale, scale, to_words


def _copy(target: Tensor, values: object) -> None:
    """Copy values into a tensor, or into a part of one."""
    target.copy_(torch.as_tensor(values))
