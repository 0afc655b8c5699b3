"""The configurations that `protalign reproduce` trains: the paper's, and a few beyond it.

They stand in tables. A row differs from the base configuration (paper, section 3,
"Hyperparameters") in one or two parameters. A configuration in several tables is trained once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Parameters = Mapping[str, Any]

#: The paper's configuration. It gives no number of epochs: here the validation part decides.
BASE: Parameters = MappingProxyType(
    {
        "loss": "clip",
        "temperature": 0.07,
        "learnable_temperature": False,
        "pooling": "attention",
        "embed_dim": 128,
        "n_heads": 4,
        "batch_size": 1024,
        "learning_rate": 0.001,
        "max_epochs": 120,
        "n_iter_no_change": 20,
    }
)


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration in a table.

    Attributes
    ----------
    label : str
        Its name in the table.
    parameters : mapping
        Parameters of ``ProtAlignEstimator``; the others keep their defaults.
    paper : mapping
        The paper's figures, as fractions, by the keys of ``retrieval_figures``; may be empty.
    """

    label: str
    parameters: Parameters
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExperimentTable:
    """Configurations that answer one question.

    Attributes
    ----------
    key : str
        Its name in results.json.
    title, note : str
        Texts for the page.
    rows : tuple of Row
        The configurations.
    """

    key: str
    title: str
    note: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """All tables, and the configurations that the figures show.

    Attributes
    ----------
    name : str
        "full" or "quick".
    main : mapping
        CLIP as in the paper. Figures 2 and 4, the map and the evaluation show its model.
    siglip : mapping
        SigLIP. Figure 3 compares it with ``main``.
    tables : tuple of ExperimentTable
        The tables, in the page's order.
    """

    name: str
    main: Parameters
    siglip: Parameters
    tables: tuple[ExperimentTable, ...]

    def configurations(self) -> list[Parameters]:
        """Return every configuration once.

        Those with the most epochs come first, so that no core waits for a late long run.
        """
        by_name: dict[str, Parameters] = {}
        for table in self.tables:
            for row in table.rows:
                by_name.setdefault(configuration_name(row.parameters), row.parameters)
        return sorted(by_name.values(), key=lambda parameters: -parameters["max_epochs"])


def configuration_name(parameters: Parameters) -> str:
    """Return a text that equal configurations share, in whatever order their parameters stand.

    Examples
    --------
    >>> configuration_name({"loss": "clip", "embed_dim": 64})
    "[('embed_dim', 64), ('loss', 'clip')]"
    """
    return repr(sorted(parameters.items()))


def full_grid() -> Grid:
    """Return Tables 2 and 3 of the paper, and the choices that it studied without figures."""
    # SigLIP learns more slowly: it gets twice the epochs and twice the patience.
    siglip = {"loss": "siglip", "bias": -10.0, "max_epochs": 240, "n_iter_no_change": 40}
    projections = {
        "attention pooling": "attention",
        "mean pooling, linear": "mean-linear",
        "mean pooling, MLP": "mean-mlp",
    }
    return _grid(
        "full",
        BASE,
        siglip,
        {
            "bias": [-10.0, -5.0, 0.0],
            "temperature": [0.07, 0.035, 0.02, 0.001],
            "learnable": [False, True],
            "pooling": projections,
            "embed_dim": [64, 128, 256],
            "n_heads": [1, 4, 8],
            "batch_size": [256, 512, 1024],
        },
    )


def quick_grid() -> Grid:
    """Return a few configurations of a few epochs: a trial run, from which nothing is learned."""
    base = {**BASE, "max_epochs": 12, "n_iter_no_change": 6}
    siglip = {"loss": "siglip", "bias": -10.0, "max_epochs": 12, "n_iter_no_change": 6}
    return _grid(
        "quick",
        base,
        siglip,
        {
            "temperature": [0.07, 0.001],
            "pooling": {"attention pooling": "attention", "mean pooling, linear": "mean-linear"},
        },
    )


_LOSS_PAPER = {
    "siglip": {"recall_at_1": 0.400, "recall_at_5": 0.976},
    "clip": {"recall_at_1": 0.427, "recall_at_5": 0.991},
}
_TEMPERATURE_PAPER = {
    0.07: {"recall_at_1": 0.427, "recall_at_5": 0.991},
    0.035: {"recall_at_1": 0.423, "recall_at_5": 0.986},
    0.02: {"recall_at_1": 0.427, "recall_at_5": 0.986},
    0.001: {"recall_at_1": 0.4093, "recall_at_5": 0.958},
}


def _grid(name: str, base: Parameters, siglip: Parameters, choices: Mapping[str, Any]) -> Grid:
    with_siglip = {**base, **siglip}
    biases = choices.get("bias", [])
    tables = [
        ExperimentTable(
            "table2",
            "Table 2: SigLIP or CLIP",
            f"CLIP at τ = 0.07, SigLIP at b = {_signed(-10)}. The paper's table gives SigLIP's "
            "Recall@5 as 97.6 %, its text as 96.7 %.",
            (
                Row("SigLIP", with_siglip, _LOSS_PAPER["siglip"]),
                Row("CLIP", base, _LOSS_PAPER["clip"]),
            ),
        ),
        ExperimentTable(
            "table3",
            "Table 3: CLIP's temperature",
            "",
            tuple(
                Row(f"τ = {value:g}", {**base, "temperature": value}, _TEMPERATURE_PAPER[value])
                for value in choices["temperature"]
            ),
        ),
        ExperimentTable(
            "bias",
            "SigLIP's initial bias",
            f"The paper found b = {_signed(-10)} the best of the values it tried; it prints no "
            "figures. The bias is learned, in steps of about the learning rate. The last column "
            "gives its value after training.",
            tuple(Row(f"b = {_signed(value)}", {**with_siglip, "bias": value}) for value in biases),
        ),
        ExperimentTable(
            "learnable",
            "Learned temperature",
            "The paper fixes the temperature; the original CLIP learns it.",
            tuple(
                Row(
                    "τ learned from 0.07" if value else "τ = 0.07 fixed",
                    {**base, "learnable_temperature": value},
                )
                for value in choices.get("learnable", [])
            ),
        ),
        ExperimentTable(
            "pooling",
            "Projection strategies",
            "The ways to make one vector of a protein's residues. The paper says that it studied "
            "projection strategies; it prints no figures.",
            tuple(
                Row(label, {**base, "pooling": value})
                for label, value in choices["pooling"].items()
            ),
        ),
        *(
            ExperimentTable(
                key,
                title,
                note,
                tuple(Row(f"{value:,}", {**base, key: value}) for value in choices.get(key, [])),
            )
            for key, title, note in _NUMBERS
        ),
    ]
    return Grid(name, base, with_siglip, tuple(table for table in tables if table.rows))


_NUMBERS = (
    ("embed_dim", "Embedding dimension", "The paper uses 128."),
    ("n_heads", "Attention heads", "The paper uses 4."),
    (
        "batch_size",
        "Batch size",
        "The paper uses 1,024. A smaller batch gives fewer negatives, and an epoch of more steps.",
    ),
)


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
