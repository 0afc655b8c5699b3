"""Reading of PDB text into a gemmi structure: records are checked, and only those needed kept.

gemmi reads bad PDB text in silence: ``******`` becomes the coordinate 0.0, and a residue number
that is not a number becomes 0. So the columns are checked here, for all lines at once.
"""

from __future__ import annotations

import gemmi
import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Bool, Int64
from protalign.core.errors import InputError
from protalign.reading.content import FETCH_AGAIN

#: Shortest line of coordinates: it reaches the end of its z column.
_SHORTEST = 54
#: End of the B-factor's column, which every program writes.
_THROUGH_B_FACTOR = 66
_WIDTH = 80
_NEWLINE, _RETURN, _SPACE = b"\n\r "
#: Rank of each byte in a number: a space, then a sign, then digits; all else is out.
_SIGN, _DIGIT, _OTHER = 1, 3, 9
_RANK = np.full(256, _OTHER, dtype=np.uint8)
_RANK[_SPACE], _RANK[ord("-")], _RANK[ord("0") : ord("9") + 1] = 0, _SIGN, _DIGIT
#: Every position of the names N, CA, C and O within the atom name's four columns.
_BACKBONE_NAMES = np.array(
    [
        name.rjust(len(name) + indent).ljust(4).encode()
        for name in ("N", "CA", "C", "O")
        for indent in range(5 - len(name))
    ],
    dtype="S4",
).view(np.uint32)

Columns = npt.NDArray[np.uint8]


class PdbLines:
    """The lines of PDB text, as columns.

    Attributes
    ----------
    data : bytes
        The text, ending in a newline.
    starts, ends : (lines,) int64
        Index of each line's first byte and of its newline.
    records : (lines,) S6
        The record names, padded with spaces.
    """

    def __init__(self, data: bytes) -> None:
        self.whole = data.endswith(b"\n")
        self.data = data if self.whole else data + b"\n"
        self._bytes = np.frombuffer(self.data + b" " * _WIDTH, dtype=np.uint8)
        self.ends = np.flatnonzero(self._bytes[: len(self.data)] == _NEWLINE)
        self.starts = np.concatenate([[0], self.ends[:-1] + 1])
        names = self.columns(self.starts, 0, 6)
        short = np.flatnonzero(self.ends - self.starts <= 6)
        if len(short):  # what follows is the next line's
            beyond = self.starts[short, None] + np.arange(6) >= self.ends[short, None]
            names[short] = np.where(beyond | (names[short] == _RETURN), _SPACE, names[short])
        self.records = names.view("S6")[:, 0]
        # Six-digit serial numbers reach into the record name: "ATOM 100000".
        atom = names[:, :4].view(np.uint32)[:, 0] == np.frombuffer(b"ATOM", np.uint32)
        self.is_atom = atom | (self.records == b"HETATM")

    def columns(self, starts: Int64, first: int, stop: int) -> Columns:
        """Return (lines, stop - first) uint8: the same columns of each line, counted from 0."""
        width = stop - first
        # All overlapping windows of this width, without a copy. sliding_window_view would do the
        # same, but its checks cost more than all else here.
        shape = (len(self._bytes) - width + 1, width)
        windows: Columns = np.ndarray(shape, np.uint8, self._bytes, strides=(1, 1))
        return windows[starts + first]

    def is_record(self, name: bytes) -> Bool:
        """Return (lines,) bool: lines of this record, whatever follows its name."""
        return np.asarray(self.records == name.ljust(6))

    def text(self, keep: Bool) -> bytes:
        """Return the lines marked in ``keep``, as text."""
        sizes = self.ends - self.starts + 1
        return self._bytes[: len(self.data)][np.repeat(keep, sizes)].tobytes()


def read_pdb(data: bytes) -> tuple[gemmi.Structure, str]:
    """Return the first model of PDB text, and the text before its first atom.

    The structure holds the backbone atoms, every residue's first atom, TER and SEQRES: all that
    a Protein needs. Raises InputError for text that is truncated or damaged, or has no atoms.
    """
    lines = PdbLines(data.removeprefix(b"\xef\xbb\xbf"))
    atoms = np.flatnonzero(lines.is_atom)
    if len(atoms) == 0:
        raise InputError("it has no ATOM records", "give a file with coordinates")
    _check_end(lines, atoms)
    first_model = _first_model(lines, atoms)
    atoms = atoms[atoms < first_model]
    keep = lines.is_record(b"SEQRES") | lines.is_record(b"TER")
    keep[first_model:] = False
    wanted = atoms[_wanted(lines, atoms)]
    _check_atoms(lines, wanted)
    keep[wanted] = True
    header = lines.data[: lines.starts[atoms[0]]].decode("latin-1")
    text = lines.text(keep)
    if not text.isascii():
        raise InputError("its PDB records are damaged (bytes that are not ASCII)", FETCH_AGAIN)
    try:
        structure = gemmi.read_pdb_string(text)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"its PDB records are damaged ({reason})", FETCH_AGAIN) from error
    structure.merge_chain_parts()
    return structure, header


def _first_model(lines: PdbLines, atoms: Int64) -> int:
    """Return the line that ends the first model: ENDMDL, END, a second MODEL, or the last."""
    ends = lines.is_record(b"ENDMDL") | lines.is_record(b"END") | lines.is_record(b"MODEL")
    ends[: atoms[0]] = False
    return int(np.argmax(ends)) if ends.any() else len(ends)


def _wanted(lines: PdbLines, atoms: Int64) -> Bool:
    """Return a mask of backbone atoms and of each residue's first atom.

    A residue is told from the next by name, chain, number and insertion code.
    """
    starts = lines.starts[atoms]
    columns = lines.columns(starts, 12, 27)
    wanted = np.isin(columns[:, :4].view(np.uint32)[:, 0], _BACKBONE_NAMES)
    wanted[0] = True
    for part in (columns[:, 5:13].view(np.uint64)[:, 0], columns[:, 13:].view(np.uint16)[:, 0]):
        wanted[1:] |= part[1:] != part[:-1]
    return wanted


def _check_end(lines: PdbLines, atoms: Int64) -> None:
    """Raise InputError if the text plainly stops before its end."""
    truncated = InputError("it is truncated: the file ends early", FETCH_AGAIN)
    lengths = lines.ends[atoms] - lines.starts[atoms]
    last_is_atom = atoms[-1] == len(lines.ends) - 1
    if not lines.whole and last_is_atom:
        usual = lengths[-2] if len(lengths) > 1 else _THROUGH_B_FACTOR
        if lengths[-1] < min(usual, _THROUGH_B_FACTOR):
            raise truncated
    short = lengths < _SHORTEST
    if short.any():
        line = int(atoms[np.argmax(short)])
        raise InputError(f"line {line + 1} is cut short", FETCH_AGAIN)
    if lines.is_record(b"END").any():
        return
    models = np.count_nonzero(lines.is_record(b"MODEL"))
    if models > np.count_nonzero(lines.is_record(b"ENDMDL")):
        raise truncated
    # The archive's own files say so in REMARK 4, and always end in END.
    if b" COMPLIES WITH FORMAT V." in lines.data[: lines.starts[atoms[0]]]:
        raise truncated


def _check_atoms(lines: PdbLines, atoms: Int64) -> None:
    """Raise InputError if a coordinate or a residue number is not a number."""
    starts = lines.starts[atoms]
    coordinates = lines.columns(starts, 30, 54)
    if not _is_usual(coordinates.reshape(-1, 8), whole=4):
        bad = _first_bad(coordinates.view("S8"))
        if bad is not None:
            raise InputError(
                f"line {atoms[bad] + 1} has a coordinate that is not a number",
                "give a file with finite coordinates in their columns",
            )
    numbers = lines.columns(starts, 22, 26)
    if (
        not _is_usual(numbers, whole=4)
        and (bad := _first_bad(numbers.view("S4"), base=36)) is not None
    ):
        raise InputError(
            f"line {atoms[bad] + 1} has a residue number that is not a number", FETCH_AGAIN
        )


def _is_usual(fields: Columns, whole: int) -> bool:
    """Return whether (n, width) fields read "  -1" in the first ``whole`` columns, then ".234".

    This quick check accepts nearly every file. Fields that it does not accept are parsed one by
    one.
    """
    columns = np.ascontiguousarray(fields.T)  # numpy is slow on short rows
    ranks = _RANK[columns]
    lead = ranks[:whole]
    # From left to right: spaces, at most one sign, digits up to the point.
    steps = lead[1:] - lead[:-1]
    return bool(
        lead.max() == _DIGIT
        and steps.max() <= _DIGIT
        and (lead[:-1] + lead[1:] != 2 * _SIGN).all()
        and (lead[-1] == _DIGIT).all()
        and (columns[whole : whole + 1] == ord(".")).all()
        and (ranks[whole + 1 :] == _DIGIT).all()
    )


def _first_bad(fields: npt.NDArray[np.bytes_], base: int = 10) -> int | None:
    """Return the index of the first row with a field that is not a finite number of the base."""
    for index, row in enumerate(fields):
        for field in row.tolist():
            if not (_is_finite(field) if base == 10 else _is_integer(field, base)):
                return index
    return None


def _is_finite(field: bytes) -> bool:
    try:
        return bool(np.isfinite(float(field)))
    except ValueError:
        return False


def _is_integer(field: bytes, base: int) -> bool:
    try:
        int(field, base)
    except ValueError:
        return False
    return True
