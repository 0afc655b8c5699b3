"""The plot of how cost grows with the number of proteins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Part -> what it is called. Those of ``scaling.py``, then those of ``words.py``.
PARTS = {
    "embed": "embed, without the encoders",
    "fit": "fit, an epoch",
    "verify": "verify",
    "search": "search, 64 queries",
    "each": "search by words, each of 64 queries",
}
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")


def slope(rows: Sequence[Mapping[str, Any]], part: str, size: str = "proteins") -> float:
    """Return the slope of the last two sizes on logarithmic axes; 1: cost grows as the size."""
    before, last = rows[-2:]
    return math.log(last[part] / before[part]) / math.log(last[size] / before[size])


def draw_growth(
    scaling: Sequence[Mapping[str, Any]],
    words: Sequence[Mapping[str, Any]],
    processor: str,
    threads: int,
    path: Path,
) -> None:
    """Draw seconds against proteins, on logarithmic axes.

    Parameters
    ----------
    scaling, words : sequences of mappings
        The rows of the results of ``scaling.py`` and of ``words.py``, by ascending size; ``words``
        may be empty.
    processor, threads : str and int
        What measured them.
    path : Path
        The file, .svg or .png.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "protalign"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 5), layout="constrained")
    for (part, name), colour in zip(PARTS.items(), _COLOURS, strict=True):
        rows, size = (words, "structures") if part == "each" else (scaling, "proteins")
        if not rows:
            continue
        label = f"{name} (slope {slope(rows, part, size):.2f})" if len(rows) > 1 else name
        sizes, seconds = [row[size] for row in rows], [row[part] for row in rows]
        axis.plot(sizes, seconds, "o-", color=colour, label=label)
    axis.set(xscale="log", yscale="log", xlabel="proteins", ylabel="seconds")
    axis.set_title(f"Made-up proteins\n{processor}, {threads} thread(s)")
    axis.grid(which="major", color="#dddddd")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
