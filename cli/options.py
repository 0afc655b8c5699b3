"""Arguments and options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from protalign.core.words import ClusterMethod, Modality, Part, Per, SequenceSource

StorePath = Annotated[
    str,
    typer.Argument(
        help="A store that `protalign embed` made, or a quoted pattern: 'shards/*.zarr' is several "
        "stores, read as one."
    ),
]
StoreList = Annotated[
    list[str],
    typer.Argument(
        metavar="store",
        help="A store that `protalign embed` made; or several, or a quoted pattern such as "
        "'shards/*.zarr': they are read as one.",
        show_default=False,
    ),
]
ModelPath = Annotated[
    Path, typer.Option("--model", "-m", help="A model folder that `protalign fit` wrote.")
]
AnyModel = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        help="A model folder that `protalign fit` wrote. Default: the small model that ships with "
        "ProtAlign.",
    ),
]
IdsPath = Annotated[
    Path | None,
    typer.Option("--ids", help="Use only these entries: a text file with one id per line."),
]

_SPLIT = typer.Option("--split", help="A file that `protalign split` wrote.")
SplitPath = Annotated[Path, _SPLIT]
OptionalSplitPath = Annotated[Path | None, _SPLIT]
PartOfSplit = Annotated[Part, typer.Option("--part", help="The part of the split to use.")]

_ENCODER = "Name of the {} embeddings to use, if the store has more than one."
SequenceEmbeddings = Annotated[
    str | None, typer.Option("--sequence-encoder", help=_ENCODER.format("sequence"))
]
StructureEmbeddings = Annotated[
    str | None, typer.Option("--structure-encoder", help=_ENCODER.format("structure"))
]

_WEIGHTS = "Weights file of the {} encoder, if it is not found automatically."
SequenceWeights = Annotated[
    Path | None, typer.Option("--sequence-weights", help=_WEIGHTS.format("sequence"))
]
StructureWeights = Annotated[
    Path | None, typer.Option("--structure-weights", help=_WEIGHTS.format("structure"))
]

EntryPer = Annotated[
    Per,
    typer.Option("--per", help="One entry per file (all its different chains), or one per chain."),
]
SequenceOf = Annotated[
    SequenceSource,
    typer.Option(
        "--sequence",
        help="Sequence of the residues with coordinates, or of all residues (SEQRES, mmCIF's "
        "entity).",
    ),
]
MinPlddt = Annotated[
    float | None,
    typer.Option(
        "--min-plddt",
        help="Leave out residues of predicted structures below this pLDDT (0-100).",
    ),
]
Assembly = Annotated[
    str | None,
    typer.Option(
        "--assembly",
        help="Build this biological assembly, such as 1, with the operators in each structure "
        "file (mmCIF, BinaryCIF, PDB's REMARK 350). Default: the chains of the file.",
        show_default=False,
    ),
]

Device = Annotated[
    str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, cuda:1 or mps.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="<address>",
        help="Address of a Dask scheduler (tcp://host:8786) with one worker per GPU. Default: this "
        "machine.",
        show_default=False,
    ),
]
Method = Annotated[
    ClusterMethod,
    typer.Option(
        help="Compare sequences with MMseqs2 or with k-mers (coarse); auto uses MMseqs2 if it is "
        "found."
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", help="Random seed; the same seed gives the same result.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def given_weights(sequence: Path | None, structure: Path | None) -> dict[Modality, str]:
    """Return modality -> weights file, for the encoders that a file was named for."""
    files: dict[Modality, Path | None] = {"sequence": sequence, "structure": structure}
    return {modality: str(path) for modality, path in files.items() if path is not None}
