"""What `protalign reproduce` trains: tables of configurations, the paper's and a few beyond it.

Declarative: a row is a label and the parameters in which it differs from the base configuration
(paper, section 3, "Hyperparameters"). Rows of several tables that are the same configuration are
trained once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Parameters = Mapping[str, Any]

#: The paper's configuration. It does not say how many epochs: here the validation part decides.
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
    label : what the table calls it.
    parameters : what the estimator is given; its other parameters are its defaults.
    paper : the paper's figures, as fractions, keys as in ``protalign.heads.ranks``; may be empty.
    """

    label: str
    parameters: Parameters
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """Configurations that answer one question."""

    key: str
    title: str
    note: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """All tables, and the one configuration that the figures show.

    Attributes
    ----------
    main : CLIP as in the paper; figures 2 and 4, the map and the evaluation are of its model.
    siglip : what figure 3 compares it with.
    """

    name: str
    main: Parameters
    siglip: Parameters
    tables: tuple[Table, ...]

    def configurations(self) -> list[Parameters]:
        """Every configuration once, the one that trains longest first, so that no core waits."""
        found: dict[str, Parameters] = {}
        for table in self.tables:
            for row in table.rows:
                found.setdefault(configuration_name(row.parameters), row.parameters)
        return sorted(found.values(), key=lambda parameters: -parameters["max_epochs"])


def configuration_name(parameters: Parameters) -> str:
    """One text for one configuration, whatever the order of its parameters."""
    return repr(sorted(parameters.items()))


def full_grid() -> Grid:
    """Tables 2 and 3 of the paper, SigLIP's bias, and the choices it names as studied."""
    # SigLIP learns more slowly: twice the epochs, and twice the patience.
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
    """A few configurations and epochs: to see that everything works, not to learn from."""
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
        Table(
            "table2",
            "Table 2: SigLIP or CLIP",
            f"CLIP at τ = 0.07, SigLIP at b = {_signed(-10)}. The paper's text gives SigLIP's "
            "Recall@5 as 96.7 %, its table as 97.6 %.",
            (
                Row("SigLIP", with_siglip, _LOSS_PAPER["siglip"]),
                Row("CLIP", base, _LOSS_PAPER["clip"]),
            ),
        ),
        Table(
            "table3",
            "Table 3: CLIP's temperature",
            "",
            tuple(
                Row(f"τ = {value:g}", {**base, "temperature": value}, _TEMPERATURE_PAPER[value])
                for value in choices["temperature"]
            ),
        ),
        Table(
            "bias",
            "SigLIP's bias at the start",
            f"The paper found b = {_signed(-10)} best of those it tried and prints no figures. The "
            "bias is learned, by steps of about the learning rate: the last column says where to.",
            tuple(Row(f"b = {_signed(value)}", {**with_siglip, "bias": value}) for value in biases),
        ),
        Table(
            "learnable",
            "Learned temperature",
            "Fixed in the paper; learned in CLIP itself.",
            tuple(
                Row(
                    "τ learned from 0.07" if value else "τ = 0.07 fixed",
                    {**base, "learnable_temperature": value},
                )
                for value in choices.get("learnable", [])
            ),
        ),
        Table(
            "pooling",
            "Projection strategies",
            "How residues become one vector. The paper says that it studied projection strategies "
            "and prints no figures.",
            tuple(
                Row(label, {**base, "pooling": value})
                for label, value in choices["pooling"].items()
            ),
        ),
        *(
            Table(
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
    ("embed_dim", "Embedding dimension", "128 in the paper."),
    ("n_heads", "Attention heads", "4 in the paper."),
    (
        "batch_size",
        "Batch size",
        "1,024 in the paper. A smaller batch has fewer negatives and takes more steps an epoch: "
        "steps, not epochs, are what the optimiser sees.",
    ),
)


def _signed(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
