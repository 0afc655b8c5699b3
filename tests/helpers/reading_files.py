"""Real files and made ones, for the tests of reading structures."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import gemmi
import numpy as np
from biotite.structure.io.pdbx import (
    BinaryCIFBlock,
    BinaryCIFCategory,
    BinaryCIFColumn,
    BinaryCIFFile,
    CIFFile,
)

from protalign.core.protein import Chain, Protein
from protalign.reading import ReadOptions, SourceResult, find_sources, read_source

DATA = Path(__file__).parents[1] / "reading" / "data"


def read(path: Path, options: ReadOptions | None = None) -> SourceResult:
    [source], failures = find_sources([path])
    assert failures == []
    return read_source(source, options)


def read_one(path: Path, options: ReadOptions | None = None) -> Protein:
    result = read(path, options)
    assert result.failures == []
    [protein] = result.proteins
    return protein


def assert_same_chain(left: Chain, right: Chain) -> None:
    assert left.id == right.id
    assert left.sequence == right.sequence
    np.testing.assert_array_equal(left.residue_numbers, right.residue_numbers)
    np.testing.assert_array_equal(left.insertion_codes, right.insertion_codes)
    np.testing.assert_array_equal(left.observed, right.observed)
    assert left.backbone is not None
    assert right.backbone is not None
    np.testing.assert_array_equal(left.backbone.coordinates, right.backbone.coordinates)


def read_b_factors(path: Path) -> dict[tuple[str, int, str], float]:
    """The B-factor of each residue's first atom, by chain, number and insertion code."""
    return {
        (chain.name, residue.seqid.num or 0, residue.seqid.icode): residue[0].b_iso
        for chain in gemmi.read_structure(str(path))[0]
        for residue in chain
    }


def text_of(name: str) -> str:
    return gzip.decompress((DATA / name).read_bytes()).decode()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def atom(
    number: int,
    name: str,
    residue: str = "GLY",
    chain: str = "A",
    x: float = 0.0,
    altloc: str = " ",
    occupancy: float = 1.0,
    b_factor: float = 20.0,
    record: str = "ATOM",
) -> str:
    return (
        f"{record:<6}{1:5d}  {name:<3}{altloc}{residue} {chain}{number:4d}    "
        f"{x:8.3f}{float(number):8.3f}{0.0:8.3f}{occupancy:6.2f}{b_factor:6.2f}"
        f"          {name[0]:>2}  \n"
    )


def residue(number: int, name: str = "GLY", chain: str = "A", **more: object) -> str:
    return "".join(
        atom(number, atom_name, name, chain, **more)  # type: ignore[arg-type]
        for atom_name in ("N", "CA", "C", "O")
    )


def as_bcif(text: str, folder: Path) -> bytes:
    source = CIFFile.read(io.StringIO(text))
    target = BinaryCIFFile()
    for block_name, block in source.items():
        target[block_name] = BinaryCIFBlock(
            {
                name: BinaryCIFCategory(
                    {
                        tag: BinaryCIFColumn(
                            column.as_array(str, "" if column.mask is not None else None),
                            column.mask.array if column.mask is not None else None,
                        )
                        for tag, column in category.items()
                    }
                )
                for name, category in block.items()
            }
        )
    path = folder / "made.bcif"
    target.write(path)
    return path.read_bytes()
