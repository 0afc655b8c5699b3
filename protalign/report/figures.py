"""The paper's figures 2 to 4 and the attention strips, drawn with matplotlib as PNG and SVG.

The colours are from the palette of Okabe and Ito (2008), which colour-blind readers can tell apart.
Where a colour means something, a shape or a label says the same.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from protalign.core.arrays import Float32, Float64
from protalign.core.files import make_folder, write_bytes
from protalign.core.words import counted
from protalign.report.space import Space

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
GREY, INK = "#8a8f98", "#22262e"
MODALITY_COLOURS = {"sequence": BLUE, "structure": ORANGE}
_MARKERS = {"sequence": "o", "structure": "^"}
_LOSS_COLOURS = {"CLIP": GREEN, "SigLIP": PURPLE}
#: Pixels per inch of the PNG: two for each pixel of the page, where a figure is 9 inches wide.
_PNG_DPI = 200
#: Area of a point in t-SNE, in square points: of up to ``_FEW_POINTS`` proteins, and of more.
_LARGE_POINT, _SMALL_POINT, _FEW_POINTS = 26, 12, 400
#: A ring of a larger radius than this part of the axis is drawn for each modality instead.
_LARGEST_RING = 0.25
#: The axes of the heatmap name up to this many proteins; more names would overlap.
_MOST_NAMED = 48
#: Scales of the attention strips: the narrowest that holds nearly all weights is used.
_ATTENTION_SCALES = (1.1, 1.2, 1.5, 2.0, 5.0, 10.0)

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in an id is a $
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "protalign",
}


@dataclass(frozen=True, slots=True, eq=False)
class AttentionTrack:
    """One protein's attention weights along its sequence.

    Attributes
    ----------
    id, family : str
        The protein.
    sequence, structure : (L, heads) float32
        Weights of each residue; NaN if it has no row of embedding.
    """

    id: str
    family: str
    sequence: Float32
    structure: Float32


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure.

    Attributes
    ----------
    name : str
        Its file name without the ending.
    png, svg : bytes
        Its two forms.
    """

    name: str
    png: bytes
    svg: bytes

    def save(self, folder: Path) -> None:
        """Write ``{name}.png`` and ``{name}.svg``."""
        make_folder(folder)
        write_bytes(folder / f"{self.name}.png", self.png)
        write_bytes(folder / f"{self.name}.svg", self.svg)


def tsne(space: Space, before: Float64, after: Float64, ringed: Sequence[int]) -> Picture:
    """Draw Figure 2: both modalities before and after training, pairs joined by a line.

    Parameters
    ----------
    space : Space
        The n proteins.
    before, after : (2 n, 2) float64
        Their points, sequences first.
    ringed : sequence of int
        Positions of Table 1's proteins.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 4.9), layout="constrained")
        axes = figure.subplots(1, 2)
        titles = "(a) before training", "(b) after training"
        for axis, points, title in zip(axes, (before, after), titles, strict=True):
            _pairs(axis, points, len(space))
            axis.set_title(title)
            axis.set_xlabel("t-SNE 1")
            axis.set_ylabel("t-SNE 2")
            axis.set_xticks([])
            axis.set_yticks([])
        if len(ringed):
            _mark_cluster(axes[1], after[list(ringed)], after[[len(space) + i for i in ringed]])
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        return _picture(figure, "figure2_tsne")


def _pairs(axis: Any, points: Float64, n: int) -> None:
    sequence, structure = points[:n], points[n:]
    lines = np.stack([sequence, structure], axis=1)
    axis.plot(
        *lines.transpose(2, 1, 0),
        color=GREY,
        linewidth=0.5,
        alpha=0.45,
        zorder=1,
        solid_capstyle="round",
    )
    size = _LARGE_POINT if n <= _FEW_POINTS else _SMALL_POINT
    for name, part in (("sequence", sequence), ("structure", structure)):
        axis.scatter(
            *part.T,
            s=size,
            marker=_MARKERS[name],
            facecolor=MODALITY_COLOURS[name],
            edgecolor="white",
            linewidth=0.4,
            alpha=0.85,
            label=f"{name}s",
            zorder=2,
        )


def _mark_cluster(axis: Any, sequence: Float64, structure: Float64) -> None:
    """Draw a ring round the points, or one per modality if the modalities lie far apart.

    The points get a dark outline, since others may lie in a ring too.
    """
    for name, part in (("sequence", sequence), ("structure", structure)):
        axis.scatter(
            *part.T,
            s=_LARGE_POINT,
            marker=_MARKERS[name],
            facecolor=MODALITY_COLOURS[name],
            edgecolor=INK,
            linewidth=0.9,
            zorder=3,
        )
    scale = np.array([high - low for low, high in (axis.get_xlim(), axis.get_ylim())])
    rings = [_ring(np.vstack([sequence, structure]), scale)]
    if rings[0][1] > _LARGEST_RING:
        rings = [_ring(sequence, scale), _ring(structure, scale)]
    angle = np.linspace(0, 2 * math.pi, 80)
    for number, (middle, radius) in enumerate(rings):
        axis.plot(
            middle[0] + radius * scale[0] * np.cos(angle),
            middle[1] + radius * scale[1] * np.sin(angle),
            color=INK,
            linewidth=1.4,
            zorder=3,
            label="cluster of Table 1" if number == 0 else None,
        )


def _ring(points: Float64, scale: Float64) -> tuple[Float64, float]:
    """Return the middle of a ring round points, and its radius as a part of the axes."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    return middle, float(np.linalg.norm((points - middle) / scale, axis=1).max()) + 0.03


def curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    """Draw Figure 3: training loss and validation MRR of both losses, and the seeds' range.

    The losses have different scales, so each has an axis of its own. The validation MRR can be
    compared.

    Parameters
    ----------
    runs : mapping
        "CLIP" and "SigLIP" -> the records of their runs.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.7), layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, (name, records) in zip(axes, runs.items(), strict=False):
            _curve(axis, [record["loss_curve"] for record in records], name)
            axis.set_title(f"{name}: training loss")
            axis.set_ylabel("loss per pair (nats)")
            axis.set_xlabel("epoch")
            axis.set_ylim(bottom=0)
        for name, records in runs.items():
            _curve(axes[2], [record["validation_curve"] for record in records], name)
            for record in records:
                if record["validation_curve"]:
                    best = record["best_epoch"]
                    height = record["validation_curve"][best - 1]
                    axes[2].plot(best, height, "o", color=_LOSS_COLOURS[name], markersize=4.5)
        axes[2].set_title("validation MRR")
        axes[2].set_ylabel("mean reciprocal rank")
        axes[2].set_xlabel("epoch (dot: the best)")
        axes[2].set_ylim(bottom=0)
        if axes[2].get_legend_handles_labels()[0]:
            axes[2].legend(loc="lower right")
        for axis in axes:
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return _picture(figure, "figure3_loss")


def _curve(axis: Any, curves: Sequence[Sequence[float]], name: str) -> None:
    """Draw each seed as a thin line, and mean and range of the epochs that all seeds reached."""
    colour = _LOSS_COLOURS[name]
    common = min((len(curve) for curve in curves), default=0)
    for curve in curves:
        axis.plot(range(1, len(curve) + 1), curve, color=colour, linewidth=0.6, alpha=0.5)
    if common == 0:
        return
    together = np.array([curve[:common] for curve in curves])
    epochs = np.arange(1, common + 1)
    axis.fill_between(
        epochs, together.min(axis=0), together.max(axis=0), color=colour, alpha=0.2, linewidth=0
    )
    axis.plot(epochs, together.mean(axis=0), color=colour, linewidth=1.8, label=name)


def heatmap(space: Space) -> Picture:
    """Draw Figure 4: cosines of all sequences with all structures, families together."""
    order = space.family_order()
    cosines = space.similarity[np.ix_(order, order)]
    family = [space.families[i] for i in order]
    starts = [0, *(i for i, (a, b) in enumerate(pairwise(family), 1) if a != b), len(order)]
    with mpl.rc_context({**_STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(7.6, 6.6), layout="constrained")
        axis = figure.subplots()
        low = float(np.percentile(cosines, 1))
        image = axis.imshow(
            cosines, cmap="viridis", vmin=low, interpolation="nearest", aspect="equal"
        )
        for first, last in pairwise(starts):
            if last - first > 1:
                axis.add_patch(
                    mpl.patches.Rectangle(
                        (first - 0.5, first - 0.5),
                        last - first,
                        last - first,
                        fill=False,
                        edgecolor="white",
                        linewidth=0.9,
                    )
                )
        axis.set_xlabel("structures, in the order of the sequences")
        axis.set_ylabel("sequences, families together")
        if len(order) <= _MOST_NAMED:
            names = [space.ids[i] for i in order]
            size = 9 if len(names) <= _MOST_NAMED // 2 else 6
            axis.set_xticks(range(len(names)), names, rotation=90, size=size)
            axis.set_yticks(range(len(names)), names, size=size)
        else:
            axis.set_xticks([])
            axis.set_yticks([])
        framed = sum(last - first > 1 for first, last in pairwise(starts))
        families = counted(framed, "family", "families")
        axis.set_title(f"{counted(len(order), 'protein')}; {families} of two or more framed")
        figure.colorbar(image, ax=axis, label="cosine", shrink=0.85, extend="min")
        return _picture(figure, "figure4_heatmap")


def attention(tracks: Sequence[AttentionTrack]) -> Picture:
    """Draw each head's weight of each residue: a strip per head, both modalities of a protein."""
    scale = _attention_scale(tracks)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 0.5 + 1.75 * len(tracks)), layout="constrained")
        parts = figure.subfigures(len(tracks), 1, squeeze=False)
        for part, track in zip(parts[:, 0], tracks, strict=True):
            axes = part.subplots(2, 1, sharex=True)
            for axis, name in zip(axes, ("sequence", "structure"), strict=True):
                image = _strips(axis, getattr(track, name), scale)
                axis.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=16)
            residues = f"{len(track.sequence)} residues"
            axes[0].set_title(f"{track.id}, family {track.family} ({residues})")
            axes[0].annotate("head", (-0.012, 1.06), xycoords="axes fraction", ha="right", size=8)
            bar = part.colorbar(
                image,
                ax=axes,
                label="times the mean",
                pad=0.01,
                aspect=12,
                extend="both",
                ticks=[1 / scale, 1, scale],
                format="%.2g",
            )
            bar.ax.minorticks_off()
        axes[1].set_xlabel("residue along the sequence")
        return _picture(figure, "attention")


def _attention_scale(tracks: Sequence[AttentionTrack]) -> float:
    """Return the end of a logarithmic scale, in multiples of the mean weight, for all proteins."""
    weights = [part for track in tracks for part in (track.sequence, track.structure)]
    relative = np.concatenate([(part / np.nanmean(part, axis=0)).ravel() for part in weights])
    deviations = np.abs(np.log(np.maximum(relative, 1 / _ATTENTION_SCALES[-1])))
    needed = float(np.exp(np.nanpercentile(deviations, 98)))
    return next((scale for scale in _ATTENTION_SCALES if scale >= needed), _ATTENTION_SCALES[-1])


def _strips(axis: Any, weights: Float32, scale: float) -> Any:
    """Draw weights in multiples of the mean on a logarithmic scale, grey for a missing row."""
    relative = weights / np.nanmean(weights, axis=0)
    colours = mpl.colormaps["viridis"].with_extremes(bad="#e4e6ea")
    axis.set_yticks(range(weights.shape[1]), [str(head + 1) for head in range(weights.shape[1])])
    axis.tick_params(axis="y", length=0, labelsize=8)
    return axis.imshow(
        relative.T,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        norm=mpl.colors.LogNorm(1 / scale, scale),
        extent=(0.5, len(weights) + 0.5, weights.shape[1] - 0.5, -0.5),
    )


def _picture(figure: Figure, name: str) -> Picture:
    figure.draw_without_rendering()  # lays it out, once for both forms
    figure.set_layout_engine("none")
    parts = {}
    for kind, metadata in (("png", {}), ("svg", {"Date": None})):
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=_PNG_DPI, metadata=metadata)
        parts[kind] = file.getvalue()
    return Picture(name, parts["png"], parts["svg"])
