"""The residues of a protein among the atom lines of PDB text, and the molecules they make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import InputError
from protalign.core.printing import printable
from protalign.reading.content import FETCH_AGAIN
from protalign.reading.hybrid36 import from_hybrid, to_hybrid
from protalign.reading.molecules import chain_code, divide, molecule_names
from protalign.reading.pdb_lines import (
    DIGIT,
    IDENTIFIED,
    NEWLINE,
    NUMBER,
    RANK,
    SHORTEST,
    SPACE,
    THROUGH_B_FACTOR,
    WIDTH,
    Columns,
    PdbLines,
    is_usual,
)
from protalign.reading.residue_names import backbone_letter, is_form, parent_name, residue_letter
from protalign.reading.residues import BOND, OXYGENS

_SEGMENT = slice(72, 76)
_COORDINATE = re.compile(rb" *[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *")
_HYBRID = re.compile(rb"[A-Z][0-9A-Z]{3}|[a-z][0-9a-z]{3}")
_POINT_COLUMNS = (35, 43, 51)


def _spellings(*names: str) -> frozenset[int]:
    """Return every position of the names within the atom name's four columns, as numbers."""
    texts = [
        name.rjust(len(name) + indent).ljust(4).encode()
        for name in names
        for indent in range(5 - len(name))
    ]
    return frozenset(np.array(texts, dtype="S4").view(np.uint32).tolist())


def _is_one_of(names: npt.NDArray[np.uint32], spellings: frozenset[int]) -> Bool:
    """Return which atom names are among the spellings; few of these occur in one file."""
    marked = np.zeros(len(names), dtype=np.bool_)
    for spelling in spellings.intersection(names.tolist()):
        marked |= names == spelling
    return marked


_NITROGEN, _ALPHA, _CARBON = _spellings("N"), _spellings("CA"), _spellings("C")
_USUAL = np.array([b" N  ", b" CA ", b" C  ", b" O  "], dtype="S4").view(np.uint32).tolist()
_BACKBONE_NAMES = _NITROGEN | _ALPHA | _CARBON | _spellings(*OXYGENS)


class PdbResidues:
    """The residues of a protein among atom lines of one model.

    A run is a stretch of lines with one residue name, chain, number and insertion code. Runs of
    amino acids are kept: known by name, or with both N and CA.

    Attributes
    ----------
    runs : (n,) int64
        Index of each run's first line in ``lines_of_atoms``.
    atoms : (m,) int64
        Indices in ``lines_of_atoms`` of the kept runs' backbone atoms and first atoms.
    run_of : (m,) int64
        The run of each of them.
    numbers : (n,) int64
        Residue numbers.
    in_kept : (k,) bool
        The lines that are in a kept run.
    last_line : int
        The line of the last atom of a kept run; -1 if nothing is kept.
    """

    def __init__(self, lines: PdbLines, lines_of_atoms: Int64) -> None:
        self._lines = lines
        self._all = lines_of_atoms
        starts = lines.starts[lines_of_atoms]
        lengths = lines.ends[lines_of_atoms] - starts
        if len(lengths) and lengths.min() < IDENTIFIED:
            line = int(lines_of_atoms[np.argmax(lengths < IDENTIFIED)])
            raise InputError(f"line {line + 1} is cut short", FETCH_AGAIN)
        columns = lines.columns(starts, 12, 27)
        atom_names = np.ascontiguousarray(columns[:, :4]).view(np.uint32)[:, 0]
        self._ter = lines.of(b"TER")
        begins = np.zeros(len(starts), dtype=np.bool_)
        begins[0] = True
        begins[np.searchsorted(lines_of_atoms, self._ter[self._ter < lines_of_atoms[-1]])] = True
        for part in (columns[:, 5:13].view(np.uint64)[:, 0], columns[:, 13:].view(np.uint16)[:, 0]):
            begins[1:] |= part[1:] != part[:-1]
        first = np.flatnonzero(begins)
        sizes = np.diff(first, append=len(starts))
        self._table, names = _name_table(columns[first])
        known = self._table.known[names]
        if not known.all():
            doubtful = np.flatnonzero(~known & self._table.possible[names])
            known[doubtful] = _has_n_and_ca(atom_names, first[doubtful], sizes[doubtful])
        self.runs, self._names = first[known], names[known]
        self._columns = columns[self.runs]
        self.ends = np.searchsorted(self._ter, lines_of_atoms[self.runs])
        in_kept = np.repeat(known, sizes)
        if lengths.min(initial=SHORTEST) < SHORTEST and (lengths[in_kept] < SHORTEST).any():
            line = int(lines_of_atoms[in_kept][np.argmax(lengths[in_kept] < SHORTEST)])
            raise InputError(f"line {line + 1} is cut short", FETCH_AGAIN)
        self.in_kept = in_kept
        self.last_line = int(lines_of_atoms[in_kept][-1]) if len(self.runs) else -1
        self.atoms = np.flatnonzero(in_kept & (begins | _is_backbone(atom_names, first, sizes)))
        self.run_of = np.searchsorted(self.runs, self.atoms, side="right") - 1
        self._atom_names = atom_names[self.atoms]
        self._starts = starts[self.atoms]
        # The line end, or what follows a short line, is in the last column.
        self._rows = lines.columns(self._starts, 0, THROUGH_B_FACTOR + 1)
        self._check_coordinates()
        self.numbers = self._parse_numbers()

    def _check_coordinates(self) -> None:
        """Raise InputError if a coordinate of a kept atom is not a number in its columns."""
        fields = np.ascontiguousarray(self._rows[:, 30:SHORTEST])
        if len(fields) == 0 or is_usual(fields.reshape(-1, 8), whole=4):
            return
        for index, row in enumerate(fields.view("S8").tolist()):
            for field, column in zip(row, _POINT_COLUMNS, strict=True):
                field = field.ljust(8)
                number = _COORDINATE.fullmatch(field)
                if number and not number[2] and field[4:5] == b".":
                    continue
                line = int(self._all[self.atoms[index]]) + 1
                if number:
                    raise InputError(
                        f"line {line} has a coordinate whose decimal point is not in column "
                        f"{column}",
                        "give a file in PDB's columns, or mmCIF if coordinates do not fit them",
                    )
                raise InputError(
                    f"line {line} has a coordinate that is not a number",
                    "give a file with finite coordinates in their columns",
                )

    def _parse_numbers(self) -> Int64:
        """Return (n,) int64, the residue numbers; raise InputError for what is not a number.

        Above 9999 numbers are hybrid-36 ("A000"), or have five digits and reach into the column
        of the insertion code, as CHARMM writes them.
        """
        fields = self._columns[:, 10:14]
        if len(fields) == 0:
            return np.empty(0, dtype=np.int64)
        codes = RANK[self._columns[:, 14]]
        if is_usual(fields, whole=4) and not (codes == DIGIT).any():
            digits = np.where(RANK[fields] == DIGIT, fields - np.uint8(ord("0")), 0)
            values: Int64 = digits.astype(np.int64) @ np.array([1000, 100, 10, 1])
            values[(fields == ord("-")).any(axis=1)] *= -1
            return values
        numbers = np.empty(len(fields), dtype=np.int64)
        for index, (field, code) in enumerate(
            zip(fields.copy().view("S4")[:, 0].tolist(), self._columns[:, 14].tolist(), strict=True)
        ):
            field = field.ljust(4)
            if NUMBER.fullmatch(field):
                five = field.isdigit() and chr(code).isdigit()
                numbers[index] = int(field + bytes([code]) if five else field)
            elif _HYBRID.fullmatch(field):
                numbers[index] = from_hybrid(field)
            else:
                line = int(self._all[self.runs[index]]) + 1
                raise InputError(
                    f"line {line} has a residue number that is not a number", FETCH_AGAIN
                )
        return numbers

    def molecules(self) -> Molecules:
        """Return the molecule of each run."""
        segments, segment_of = self._segments()
        if len(segments) == 1 and self._is_one_chain():
            letter = self._table.letters[self._table.chains[self._names[0]]]
            return Molecules(np.zeros(len(self.runs), dtype=np.int64), [letter], segments)
        chain_of = self._table.chains[self._names]
        codes = self._columns[:, 14].astype(np.int64)
        codes[self.numbers > 9999] = SPACE
        het = self._lines.columns(self._lines.starts[self._all[self.runs]], 0, 1)[:, 0] == ord("H")
        of_runs = divide(
            chain_of,
            self.ends,
            segment_of,
            self.numbers * 256 + codes,
            het,
            self._whole(),
            self,
        )
        first = np.unique(of_runs, return_index=True)[1]
        return Molecules(
            of_runs,
            [self._table.letters[chain] for chain in chain_of[first]],
            [segments[segment] for segment in segment_of[first]],
        )

    def _is_one_chain(self) -> bool:
        """Return whether all runs have one letter, numbers that rise, and no TER between them."""
        chains = self._table.chains[self._names]
        return bool(
            self.ends[0] == self.ends[-1]
            and (self.numbers[1:] >= self.numbers[:-1]).all()
            and (chains == chains[0]).all()
        )

    def _whole(self) -> Bool:
        """Return (n,) bool: runs with a CA without a label of alternate locations."""
        own = self._rows[:, 16] == SPACE
        own |= self._table.no_altloc[self._names[self.run_of]]
        whole = np.zeros(len(self.runs), dtype=np.bool_)
        whole[self.run_of[own & _is_one_of(self._atom_names, _ALPHA)]] = True
        return whole

    def _segments(self) -> tuple[list[str], Int64]:
        """Return the names of the segments, and (n,) int64, each run's.

        A column of numbers or charges in the same place differs within residues; it is not taken.
        """
        nothing = [""], np.zeros(len(self.runs), dtype=np.int64)
        lengths = self._lines.ends[self._all[self.atoms]] - self._starts
        if lengths.min(initial=WIDTH) < _SEGMENT.stop:
            return nothing
        words = self._lines.columns(self._starts, _SEGMENT.start, _SEGMENT.stop)
        codes = words.copy().view(np.uint32)[:, 0]
        if (codes == codes[:1]).all() or (
            (codes[1:] != codes[:-1]) & (self.run_of[1:] == self.run_of[:-1])
        ).any():
            return nothing
        first = np.searchsorted(self.run_of, np.arange(len(self.runs)))
        unique, inverse = np.unique(codes[first], return_inverse=True)
        names = [word.tobytes().decode("latin-1").strip() for word in unique]
        return [
            name if name.isascii() and name.isprintable() and " " not in name else ""
            for name in names
        ], inverse.reshape(-1).astype(np.int64)

    def bonded(self, before: int, after: int) -> bool:
        """Return whether a peptide bond joins the two runs."""
        carbon, nitrogen = self._position(before, _CARBON), self._position(after, _NITROGEN)
        return bool(np.linalg.norm(carbon - nitrogen) < BOND)

    def distance(self, one: int, other: int) -> float:
        """Return the distance of the two runs' CA atoms in Å, NaN if one is missing."""
        return float(np.linalg.norm(self._position(one, _ALPHA) - self._position(other, _ALPHA)))

    def label(self, residue: int) -> str:
        """Return the run's name in a message: "chain A, GLY 12"."""
        index = self._names[residue]
        chain = printable(self._table.letters[self._table.chains[index]])
        name = printable(self._table.names[index])
        code = chr(self._columns[residue, 14]).strip()
        code = "" if self.numbers[residue] > 9999 else printable(code)
        return f"chain {chain}, {name} {self.numbers[residue]}{code}"

    def _position(self, run: int, spellings: frozenset[int]) -> npt.NDArray[np.float64]:
        start, stop = np.searchsorted(self.run_of, [run, run + 1])
        named = np.flatnonzero(_is_one_of(self._atom_names[start:stop], spellings))
        if len(named) == 0:
            return np.full(3, np.nan)
        begin = int(self._starts[start + named[0]])
        text = self._lines.data[begin + 30 : begin + SHORTEST]
        return np.array([float(text[at : at + 8]) for at in (0, 8, 16)])

    def text(self, molecules: Molecules) -> bytes:
        """Return the kept atoms as PDB text for gemmi, each molecule under a chain name of its own.

        Names of residues are the archive's, and nothing stands behind the B-factor.
        """
        rows = self._rows.copy()
        lengths = self._lines.ends[self._all[self.atoms]] - self._starts
        short = np.flatnonzero(lengths <= THROUGH_B_FACTOR)
        if len(short):
            rows[short] = np.where(
                np.arange(rows.shape[1]) < lengths[short, None], rows[short], SPACE
            )
        rows[:, 6:12] = SPACE  # serial numbers may be anything: "*****", "186a2", six digits
        rows[rows[:, 0] == ord("A"), 4:6] = SPACE
        names = self._names[self.run_of]
        if self._table.no_altloc.any():
            rows[:, 16][self._table.no_altloc[names]] = SPACE
        rows[:, 17:20] = self._table.parents[names]
        codes = [chain_code(index) for index in range(len(molecules.chains))]
        if codes:
            table = np.frombuffer(b"".join(codes), dtype=np.uint8).reshape(-1, 2)
            rows[:, 20:22] = table[molecules.of_runs[self.run_of]]
        large = np.flatnonzero(self.numbers > 9999)
        for run in large.tolist():
            field = np.frombuffer(to_hybrid(int(self.numbers[run])), dtype=np.uint8)
            rows[self.run_of == run, 22:26] = field
            rows[self.run_of == run, 26] = SPACE
        rows[:, -1] = NEWLINE
        return self._with_ends(rows)

    def values(
        self, molecules: Molecules, names: list[str], values: Mapping[tuple[str, int, str], float]
    ) -> list[float]:
        """Return each run's value, 0 for a residue that has none."""
        codes = np.where(self.numbers > 9999, SPACE, self._columns[:, 14])
        keys = zip(molecules.of_runs.tolist(), self.numbers.tolist(), codes.tolist(), strict=True)
        return [
            values.get((names[molecule], number, chr(code)), 0.0) for molecule, number, code in keys
        ]

    def _with_ends(self, rows: Columns) -> bytes:
        """Return the rows as text, with TER where the file has it."""
        after = np.searchsorted(self._all[self.atoms], self._ter)
        parts, begin = [], 0
        for stop in np.unique(after[after > 0]).tolist():
            parts += [rows[begin:stop].tobytes(), b"TER\n"]
            begin = stop
        parts.append(rows[begin:].tobytes())
        return b"".join(parts)

    def seqres(self, molecules: Molecules) -> bytes:
        """Return SEQRES under the names of ``text``; a divided chain's is its first part's."""
        code_of: dict[str, bytes] = {}
        for index, chain in enumerate(molecules.chains):
            code_of.setdefault(chain, chain_code(index))
        made = []
        for line in self._lines.of(b"SEQRES").tolist():
            text = self._lines.text(line)
            code = code_of.get(text[10:12].decode("latin-1").strip())
            if code is None:
                continue
            names = [parent_name(name) for name in text[19:70].decode("latin-1").split()]
            row = text[:10].ljust(10) + code + text[12:19].ljust(7)
            made.append(row + " ".join(f"{name[:3]:>3}" for name in names).encode("latin-1"))
        return b"".join(row + b"\n" for row in made)


@dataclass(frozen=True, slots=True)
class Molecules:
    """The molecules of a model.

    Attributes
    ----------
    of_runs : (n,) int64
        The molecule of each run of a residue.
    chains, segments : list of str
        Of each molecule: the chain's letter, and the segment's name or "".
    """

    of_runs: Int64
    chains: list[str]
    segments: list[str]

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """A name for each molecule, and notes about divided chains."""
        return molecule_names(self.chains, self.segments)


@dataclass(frozen=True, slots=True)
class _NameTable:
    """What the columns 17 to 22 of runs say: the residue's name and its chain's; n different ones.

    Force fields have residue names of four letters. They reach into the column after the name,
    where others write the first of two letters of a chain name, or into the column before, which is
    that of the alternate location.

    Attributes
    ----------
    names : (n,) tuple of str
    parents : (n, 3) uint8
        The archive's name for it.
    letters : list of str
        Names of chains, which ``chains`` (n,) int64 are indices of.
    no_altloc : (n,) bool
        The column of the alternate location holds a letter of the name.
    known, possible : (n,) bool
        An amino acid by its name; an amino acid if it has N and CA.
    """

    names: tuple[str, ...]
    parents: Columns
    letters: list[str]
    chains: Int64
    no_altloc: Bool
    known: Bool
    possible: Bool


def _name_table(columns: Columns) -> tuple[_NameTable, Int64]:
    """Return the table of the runs' names, and (runs,) int64, each run's index in it."""
    keys = np.zeros((len(columns), 8), dtype=np.uint8)
    keys[:, :6] = columns[:, 4:10]
    unique, inverse = np.unique(keys.view(np.uint64)[:, 0], return_inverse=True)
    texts = [key.tobytes()[:6].decode("latin-1") for key in unique]
    two_letters = {
        text[4:]
        for text in texts
        if text[4] != " " and residue_letter(text[1:4].strip()) and not is_form(text[1:5])
    }
    read = [_read_name(text, text[4:] in two_letters) for text in texts]
    names, parents, chains, no_altloc, known, possible = zip(*read, strict=True)
    letters = list(dict.fromkeys(chains))
    table = _NameTable(
        names,
        np.frombuffer(b"".join(parents), np.uint8).reshape(-1, 3),
        letters,
        np.array([letters.index(chain) for chain in chains], dtype=np.int64),
        np.array(no_altloc, dtype=np.bool_),
        np.array(known, dtype=np.bool_),
        np.array(possible, dtype=np.bool_),
    )
    return table, inverse.reshape(-1)


@lru_cache(maxsize=10_000)
def _read_name(text: str, has_two_letters: bool) -> tuple[str, bytes, str, bool, bool, bool]:
    """Return the fields of ``_NameTable`` for the columns 17 to 22 of a run."""
    name, chain, in_altloc = text[1:4].strip(), text[4:], False
    if text[4] != " " and is_form(text[1:5]) and not has_two_letters:
        name, chain = text[1:5], text[5]
    elif text[0] != " " and not residue_letter(name) and is_form(text[:4]):
        name, in_altloc = text[:4], True
    parent = f"{parent_name(name):>3}"[:3].encode("latin-1")
    known, possible = residue_letter(name) != "", backbone_letter(name) != ""
    return name, parent, chain.strip(), in_altloc, known, possible


def _has_n_and_ca(names: npt.NDArray[np.uint32], first: Int64, sizes: Int64) -> Bool:
    """Return for each run, from its first atom on, whether it has atoms N and CA."""
    if len(first) == 0:
        return np.zeros(0, dtype=np.bool_)
    begin = np.cumsum(sizes) - sizes
    names = names[np.repeat(first - begin, sizes) + np.arange(int(sizes.sum()))]
    has = [
        np.logical_or.reduceat(_is_one_of(names, spellings), begin)
        for spellings in (_NITROGEN, _ALPHA)
    ]
    both: Bool = has[0] & has[1]
    return both


def _is_backbone(names: npt.NDArray[np.uint32], first: Int64, sizes: Int64) -> Bool:
    """Return which atoms may be a backbone's; runs begin at ``first``.

    Other spellings are looked for only in runs that lack an atom of the usual ones.
    """
    usual = np.zeros(len(names), dtype=np.bool_)
    for spelling in _USUAL:
        usual |= names == spelling
    lack = np.add.reduceat(usual, first, dtype=np.int64) < len(_USUAL)
    if lack.any():
        rest = np.flatnonzero(np.repeat(lack, sizes) & ~usual)
        usual[rest] = _is_one_of(names[rest], _BACKBONE_NAMES)
    return usual
