"""Biological assemblies: chains copied by the operators that a structure file names.

Each copy is a chain of its own. The first copy of a chain keeps its name; others have the name, a
hyphen and a number from 2 on (A, A-2, A-3), as in the PDB's own files of assemblies. Copies are in
the order of the file: operator by operator, and for each of them chain by chain.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import gemmi
import numpy as np

from protalign.core.arrays import Float64
from protalign.core.errors import InputError
from protalign.core.machine import free_memory
from protalign.core.printing import printable
from protalign.core.protein import Backbone, Chain

#: Categories of BinaryCIF with the assemblies, and their columns (None: all of them).
ASSEMBLY_CATEGORIES: dict[str, tuple[str, ...] | None] = {
    "pdbx_struct_assembly_gen": ("assembly_id", "oper_expression", "asym_id_list"),
    "pdbx_struct_oper_list": None,
}
#: Most chains of an assembly: those of the largest capsids in the archive are fewer.
MOST_CHAINS = 20_000
#: Bytes that a copied residue takes until it is in a store: coordinates, hashed and written.
_BYTES_PER_RESIDUE = 256
#: Deviation of a rotation from orthogonality that rounding in a file explains.
_ROUNDING = 0.01
#: Largest shift in Å: coordinates in files are refused above it.
_MOST_SHIFT = 1e5
#: Operators that are applied one after another: the archive has up to three.
_MOST_GROUPS = 8
#: Names of assemblies in a message.
_NAMES_SHOWN = 10

_GENERATORS = "_pdbx_struct_assembly_gen."
_OPERATORS = "_pdbx_struct_oper_list."
_MATRIX = [f"matrix[{row}][{column}]" for row in (1, 2, 3) for column in (1, 2, 3)]
_VECTOR = [f"vector[{row}]" for row in (1, 2, 3)]
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})")
_BIOMOLECULES = re.compile(r"^REMARK 350[^\n]*\n", re.MULTILINE)
_OTHER = "choose another one, or read the file without assembly"

#: A rotation (3, 3) and a shift (3,) in Å, float64.
Motion = tuple[Float64, Float64]


@dataclass(frozen=True, eq=False, slots=True)
class Generator:
    """A part of an assembly: some chains, and the motions that make copies of them.

    Attributes
    ----------
    labels : frozenset of str
        The chains' label_asym_ids, in mmCIF.
    letters : frozenset of str
        The chains' letters, in PDB.
    motions : list of Motion
    """

    labels: frozenset[str]
    letters: frozenset[str]
    motions: list[Motion]


@dataclass(frozen=True, eq=False, slots=True)
class ChainCopy:
    """A chain of an assembly.

    Attributes
    ----------
    index : int
        The chain of the file.
    chain : Chain
        Its copy, with the copy's name and coordinates.
    """

    index: int
    chain: Chain


def drop_assemblies(block: gemmi.cif.Block) -> None:
    """Drop the assemblies of an mmCIF block.

    A few letters ("1-999999999") can stand for any number of operators, and gemmi makes them all.
    """
    block.find_mmcif_category(_GENERATORS).erase()


def cif_assembly(block: gemmi.cif.Block, name: str) -> list[Generator]:
    """Return how an assembly of an mmCIF block is made.

    Raises InputError if the file does not have it, if it is too large, or if an operator is
    missing, or is not a rotation and a shift.
    """
    table = block.find(_GENERATORS, ["assembly_id", "oper_expression", "asym_id_list"])
    parts = [(row.str(1), row.str(2)) for row in table if row.str(0) == name]
    if not parts:
        raise _missing(name, list(dict.fromkeys(row.str(0) for row in table)))
    rows = {row.str(0): row for row in block.find(_OPERATORS, ["id", *_MATRIX, *_VECTOR])}
    generators: list[Generator] = []
    for expression, labels in parts:
        chosen = _expanded(expression, name, sum(len(each.motions) for each in generators))
        operators = {each: _operator(rows.get(each), name) for each in itertools.chain(*chosen)}
        motions = [
            functools.reduce(_after, (operators[each] for each in combination))
            for combination in itertools.product(*chosen)
        ]
        members = frozenset(label.strip() for label in labels.split(","))
        generators.append(Generator(members, frozenset(), motions))
    return generators


def _operator(row: gemmi.cif.Table.Row | None, name: str) -> Motion:
    """Return an operator of an mmCIF block: behind its id, a rotation and a shift."""
    if row is None:
        raise InputError(f"assembly {name}: the file lacks one of its operators", _OTHER)
    numbers = [gemmi.cif.as_number(row[column]) for column in range(1, 13)]
    return _checked(np.array(numbers[:9]).reshape(3, 3), np.array(numbers[9:]), name)


def _expanded(expression: str, name: str, before: int) -> list[list[str]]:
    """Return the operators' ids in an expression such as "1,2", "(1-60)" or "(X0)(1-10,P)".

    One list for each pair of brackets: an operator of the last one is applied first. Raises
    InputError if there are too many together with the motions ``before``; before they are made.
    """
    groups = re.findall(r"\(([^()]*)\)", expression) or [expression]
    if len(groups) > _MOST_GROUPS:
        raise InputError(f"assembly {name}: its operators are damaged", _OTHER)
    items = [[item.strip() for item in group.split(",")] for group in groups]
    _check_count(before + math.prod(sum(map(_length, group)) for group in items), name)
    return [list(itertools.chain(*map(_ids, group))) for group in items]


def _length(item: str) -> int:
    match = _RANGE.fullmatch(item)
    return max(1, int(match[2]) - int(match[1]) + 1) if match else 1


def _ids(item: str) -> list[str]:
    match = _RANGE.fullmatch(item)
    return list(map(str, range(int(match[1]), int(match[2]) + 1))) if match else [item]


def _after(second: Motion, first: Motion) -> Motion:
    """Return the motion that does one after the other."""
    return second[0] @ first[0], second[0] @ first[1] + second[1]


def pdb_assembly(header: str, name: str) -> list[Generator]:
    """Return how an assembly is made by REMARK 350 of the lines before a PDB file's first atom.

    Raises InputError as ``cif_assembly`` does.
    """
    try:
        assemblies = gemmi.read_pdb_string("".join(_BIOMOLECULES.findall(header))).assemblies
    except (RuntimeError, ValueError):
        raise InputError("its REMARK 350 is damaged", "read the file without assembly") from None
    known = {assembly.name: assembly for assembly in assemblies if len(assembly.generators)}
    if name not in known:
        raise _missing(name, list(known))
    return [
        Generator(
            frozenset(),
            frozenset(generator.chains),
            [
                _checked(
                    np.array(o.transform.mat.tolist()), np.array(o.transform.vec.tolist()), name
                )
                for o in generator.operators
            ],
        )
        for generator in known[name].generators
    ]


def assembled(
    chains: Sequence[Chain],
    labels: Sequence[str],
    letters: Sequence[str],
    generators: Iterable[Generator],
    name: str,
) -> list[ChainCopy]:
    """Return the chains of an assembly.

    Parameters
    ----------
    chains : sequence of Chain
        n chains of a file, each with a backbone.
    labels, letters : sequence of str
        The label_asym_id of each (mmCIF), and its letter (PDB).
    generators : iterable of Generator
        How the assembly is made.
    name : str
        Its name, for errors.

    Raises
    ------
    InputError
        It has none of the chains, or too many.
    MemoryError
        The memory does not suffice for it.
    """
    copies: dict[tuple[int, bytes], Motion] = {}
    for generator in generators:
        members = [
            index
            for index, (label, letter) in enumerate(zip(labels, letters, strict=True))
            if label in generator.labels or letter in generator.letters
        ]
        _check_count(len(copies) + len(members) * len(generator.motions), name)
        for motion in generator.motions:
            key = motion[0].tobytes() + motion[1].tobytes()
            for index in members:
                copies.setdefault((index, key), motion)
    if not copies:
        raise InputError(f"assembly {name} has no protein chain", _OTHER)
    residues = sum(len(chains[index]) for index, _ in copies)
    if residues * _BYTES_PER_RESIDUE > free_memory():
        raise MemoryError
    names = _copy_names([chains[index].id for index, _ in copies], [chain.id for chain in chains])
    return [
        ChainCopy(index, _moved(chains[index], copy_name, *motion))
        for copy_name, ((index, _), motion) in zip(names, copies.items(), strict=True)
    ]


def _check_count(count: int, name: str) -> None:
    if count > MOST_CHAINS:
        raise InputError(
            f"assembly {name} has {count:,} chains, more than the {MOST_CHAINS:,} that are read",
            _OTHER,
        )


def _missing(name: str, names: Sequence[str]) -> InputError:
    if not names:
        return InputError(f"it has no assembly {name}, and names none", "read it without assembly")
    shown = ", ".join(printable(each)[:20] for each in names[:_NAMES_SHOWN])
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return InputError(f"it has no assembly {name}", f"choose one that it has: {shown}{more}")


def _checked(rotation: Float64, shift: Float64, name: str) -> Motion:
    """Return the motion; raise InputError unless it is a rotation and a shift."""
    with np.errstate(all="ignore"):
        is_rotation = np.abs(rotation @ rotation.T - np.eye(3)).max() <= _ROUNDING
        is_rotation &= np.linalg.det(rotation) > 0
    if not (is_rotation and np.abs(shift).max() <= _MOST_SHIFT):  # also if a number is NaN
        raise InputError(
            f"assembly {name}: an operator of the file is not a rotation and a shift", _OTHER
        )
    return rotation, shift


def _moved(chain: Chain, name: str, rotation: Float64, shift: Float64) -> Chain:
    """Return a copy of a chain; its residues are shared, and its coordinates if nothing moves."""
    assert chain.backbone is not None
    backbone = chain.backbone
    if not (np.array_equal(rotation, np.eye(3)) and not shift.any()):
        moved = backbone.coordinates.astype(np.float64) @ rotation.T + shift
        backbone = Backbone(moved.astype(np.float32))
    return replace(chain, id=name, backbone=backbone)


def _copy_names(names: Sequence[str], taken: Iterable[str]) -> list[str]:
    """Return a name for each copy that no other has.

    Examples
    --------
    >>> _copy_names(["A", "B", "A", "A"], ["A", "B", "A-2"])
    ['A', 'B', 'A-3', 'A-4']
    """
    used, count = set(taken), dict.fromkeys(names, 1)
    given: list[str] = []
    first = set(names)
    for name in names:
        if name in first:
            first.discard(name)
            given.append(name)
            continue
        made = name
        while made in used:
            count[name] += 1
            made = f"{name}-{count[name]}"
        used.add(made)
        given.append(made)
    return given
