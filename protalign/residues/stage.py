"""The residue stage: residue embeddings to rows whose products are log-likelihood ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Float32, Int64
from protalign.core.protein import MODALITIES, Modality
from protalign.core.ragged import Ragged
from protalign.core.words import AlignMode
from protalign.residues.background import Background
from protalign.residues.calibration import Calibration
from protalign.residues.context import ResidueContext, limited
from protalign.residues.head import ResidueHead
from protalign.residues.proteins import PackedRows, ProteinRows

#: What the names of arrays begin with: the head's, the context's, the calibration's background.
_HEAD, _CONTEXT, _BACKGROUND = "head.", "context.", "background."


@dataclass(frozen=True, eq=False)
class ResidueStage:
    """Two linear maps that tell how much better two residues fit as one than by chance.

    Canonical correlation analysis of paired residue embeddings gives coordinates x (of a sequence's
    residue) and y (of a structure's), of unit variance, with correlations r. If each pair of
    coordinates is Gaussian, the log-likelihood ratio of "the same residue" to "two residues that
    have nothing to do with each other" is

        sum_k [ x_k y_k r_k - (x_k^2 + y_k^2) r_k^2 / 2 ] / (1 - r_k^2) - ln(1 - r_k^2) / 2

    which is one product of rows of k + 2 numbers: ``rows`` gives them for either modality.

    Residues are not Gaussian. A few lie far from the mean, the ends of chains above all: there one
    pair would decide an alignment, and any two proteins would share their first residue. So
    coordinates beyond a limit are scaled down to it.

    These are the ``plain_rows``. With a context, rows for local alignments are made of its
    coordinates, in which a sequence's residue knows its neighbours; their form is the same.

    Attributes
    ----------
    means : dict
        Modality -> (D,) float32, the mean residue embedding.
    projections : dict
        Modality -> (D, k) float32, from embeddings less their mean to coordinates.
    correlations : (k,) float32
        r, descending, at least 0 and below 1.
    n_residues : int
        Paired residues that it was fitted on.
    calibration : Calibration or None
        The scores that chance gives; None if it is not known.
    head : ResidueHead or None
        Makes the rows of the global mode; None if it was not asked for.
    context : ResidueContext or None
        Makes the coordinates of the local mode; None if there were too few residues to train it,
        if it was not wanted, and in models of before.
    largest : float or None
        The largest root mean square of a residue's k coordinates; None for no limit, as in models
        of before.

    Examples
    --------
    >>> from protalign.residues import PairSums
    >>> rng = np.random.default_rng(0)
    >>> hidden = rng.normal(size=(2000, 4))
    >>> sums = PairSums(6, 5)
    >>> sums.add(hidden @ rng.normal(size=(4, 6)), hidden @ rng.normal(size=(4, 5)))
    >>> stage = sums.stage(components=3)
    >>> stage.width, stage.rows("sequence", np.zeros((7, 6))).shape
    (5, (7, 5))
    """

    means: Mapping[Modality, Float32]
    projections: Mapping[Modality, Float32]
    correlations: Float32
    n_residues: int
    calibration: Calibration | None = None
    head: ResidueHead | None = None
    largest: float | None = None
    context: ResidueContext | None = None

    @property
    def width(self) -> int:
        """Length of a row: k + 2."""
        return len(self.correlations) + 2

    def plain_rows(self, modality: Modality, embeddings: npt.ArrayLike) -> Float32:
        """Return the rows of some residues by themselves, whatever stands beside them.

        Parameters and result are those of ``rows``, but the residues may be of many chains. Checks
        of the register, in which each residue counts alone, and words are made of these.
        """
        values = np.asarray(embeddings, dtype=np.float32)
        centred = values - self.means[modality]
        coordinates = np.matmul(centred, self.projections[modality], dtype=np.float32)
        return _ratio_rows(modality, coordinates, self.correlations, self.largest)

    def rows(
        self, modality: Modality, embeddings: npt.ArrayLike, mode: AlignMode = "local"
    ) -> Float32:
        """Return the rows of one chain's residues.

        The product of a sequence's row and a structure's row is the log-likelihood ratio of the two
        residues, in nats.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The modality of the embeddings.
        embeddings : (R, D) array
            Residue embeddings of one chain: a head and a context read a residue's neighbours too.
        mode : "local" or "global"
            What the rows are for: "global" ones are the head's, "local" ones the context's, if
            there is one.

        Returns
        -------
        (R, k + 2) float32
        """
        values = np.asarray(embeddings, dtype=np.float32)
        return self.chain_rows(modality, Ragged(values, np.array([0, len(values)])), mode)

    def chain_rows(self, modality: Modality, chains: Ragged, mode: AlignMode = "local") -> Float32:
        """Return the (R, k + 2) rows of several chains' (R, D) embeddings, as ``rows`` does."""
        if mode == "global" and self.head is not None:
            return self.head.packed_rows(modality, chains)
        if mode == "local" and self.context is not None:
            coordinates = self.context.coordinates(modality, chains)
            r, largest = self.context.correlations, self.context.largest
            return _ratio_rows(modality, coordinates, r, largest)
        return self.plain_rows(modality, chains.values)

    def protein_rows(
        self, modality: Modality, embeddings: npt.NDArray[Any], chains: Int64
    ) -> ProteinRows:
        """Return the rows of one protein for both modes, and for words.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The modality of the embeddings.
        embeddings : (L, D) array
            Its residue embeddings, chain after chain.
        chains : (c,) int64
            Rows of each chain, at least one each.
        """
        one = Ragged(np.asarray(embeddings), np.array([0, len(embeddings)]))
        (rows,) = self.packed_rows(modality, one, [chains], words=True)
        return rows

    def rows_of_mode(
        self,
        modality: Modality,
        embeddings: Ragged,
        chains: Sequence[Int64],
        mode: AlignMode,
    ) -> Ragged:
        """Return the rows of several proteins for one mode; parameters as of ``packed_rows``."""
        of_chains = np.concatenate([np.empty(0, np.int64), *chains])
        by_chain = PackedRows(embeddings, embeddings, of_chains).by_chain
        return Ragged(self.chain_rows(modality, by_chain, mode), embeddings.offsets)

    def packed_rows(
        self,
        modality: Modality,
        embeddings: Ragged,
        chains: Sequence[Int64],
        *,
        words: bool = False,
    ) -> PackedRows:
        """Return the rows of several proteins for both modes.

        Parameters
        ----------
        modality : "sequence" or "structure"
            The modality of the embeddings.
        embeddings : Ragged
            Residue embeddings of n proteins.
        chains : n of (c,) int64
            Rows of each protein's chains, at least one each.
        words : bool
            Whether rows for words are wanted too, as of queries that are compared with an index.
        """
        of_chains = np.concatenate([np.empty(0, np.int64), *chains])
        modes: list[AlignMode] = ["local"]
        if self.head is not None or self.context is not None:
            modes.append("global")
        rows = [self.rows_of_mode(modality, embeddings, chains, mode) for mode in modes]
        plain = None
        if words and self.context is None:
            plain = rows[0]
        elif words and self.head is None:
            plain = rows[-1]
        elif words:
            values = self.plain_rows(modality, embeddings.values)
            plain = Ragged(values, embeddings.offsets)
        return PackedRows(rows[0], rows[-1], of_chains, plain=plain)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return its arrays by name, as a saved model holds them."""
        named: dict[str, npt.NDArray[Any]] = {f"mean.{m}": self.means[m] for m in MODALITIES}
        named |= {f"projection.{m}": self.projections[m] for m in MODALITIES}
        if self.head is not None:
            named |= {_HEAD + name: array for name, array in self.head.tensors().items()}
        if self.context is not None:
            named |= {_CONTEXT + name: array for name, array in self.context.tensors().items()}
        if self.calibration is not None and self.calibration.background is not None:
            kept = self.calibration.background.tensors()
            named |= {_BACKGROUND + name: array for name, array in kept.items()}
        return {**named, "correlations": self.correlations}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> Self:
        """Build it of ``tensors`` and ``facts``; raise KeyError or ValueError if damaged."""
        arrays = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("the residue stage holds NaN or infinity")
        means = {m: arrays[f"mean.{m}"] for m in MODALITIES}
        projections = {m: arrays[f"projection.{m}"] for m in MODALITIES}
        correlations = arrays["correlations"]
        for modality in MODALITIES:
            shape = (*means[modality].shape, *correlations.shape)
            if len(shape) != 2 or projections[modality].shape != shape:
                raise ValueError(f"the residue stage's {modality} projection is not {shape}")
        if not ((correlations >= 0) & (correlations < 1)).all():
            raise ValueError("the residue stage's correlations are not between 0 and 1")
        known = facts["calibration"]
        kept = _beginning_with(_BACKGROUND, arrays)
        background = Background.of_tensors(kept, len(correlations) + 2) if kept else None
        calibration = None if known is None else Calibration.of_dict(known, background)
        head = None
        if facts.get("head") is not None:  # models of before have none
            ours = _beginning_with(_HEAD, arrays)
            head = ResidueHead.of_tensors(ours, facts["head"], len(correlations))
            if any(len(head.parameters[m]["mean"]) != len(means[m]) for m in MODALITIES):
                raise ValueError("the residue head is of embeddings of other widths")
        context = None
        if facts.get("context") is not None:  # models of before have none
            context = ResidueContext.of_tensors(_beginning_with(_CONTEXT, arrays), facts["context"])
            widths = [len(context.parameters[m]["mean"]) != len(means[m]) for m in MODALITIES]
            if any(widths) or context.correlations.shape != correlations.shape:
                raise ValueError("the residue context is of embeddings of other widths")
        n_residues = int(facts["n_residues"])
        limit = facts.get("largest")  # models of before have none
        largest = None if limit is None else float(limit)
        if largest is not None and not 0 < largest < np.inf:
            raise ValueError("the residue stage's limit of coordinates is not above 0")
        linear = means, projections, correlations, n_residues
        return cls(*linear, calibration, head, largest, context)

    def facts(self) -> dict[str, Any]:
        """Return what is not an array, as JSON values."""
        return {
            "components": len(self.correlations),
            "n_residues": self.n_residues,
            "largest": self.largest,
            "calibration": None if self.calibration is None else self.calibration.as_dict(),
            "head": None if self.head is None else dict(self.head.facts),
            "context": None if self.context is None else self.context.as_dict(),
        }


def _ratio_rows(
    modality: Modality, coordinates: Float32, r: Float32, largest: float | None
) -> Float32:
    """Return the (R, k + 2) rows of some coordinates, whose products are log-likelihood ratios."""
    if largest is not None:
        coordinates = limited(coordinates, largest)
    rows = np.empty((len(coordinates), len(r) + 2), dtype=np.float32)
    rows[:, :-2] = coordinates * np.sqrt(r / (1 - r**2))
    alone = -0.5 * (coordinates**2) @ (r**2 / (1 - r**2))
    # Half of the constant each, so that both modalities' rows have one form.
    alone -= 0.25 * np.log1p(-(r.astype(np.float64) ** 2)).sum().astype(np.float32)
    constant, one = (-2, -1) if modality == "sequence" else (-1, -2)
    rows[:, constant] = alone
    rows[:, one] = 1
    return rows


def _beginning_with(prefix: str, arrays: Mapping[str, Float32]) -> dict[str, Float32]:
    """Return the arrays whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
