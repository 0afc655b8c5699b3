"""The lines of PDB text as columns, and the numbers in them, checked for all lines at once."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from protalign.core.arrays import Int64

#: Shortest line that names its residue, and shortest line of coordinates (the end of z).
IDENTIFIED, SHORTEST = 27, 54
#: End of the B-factor's column, which every program writes.
THROUGH_B_FACTOR = 66
WIDTH = 80
NEWLINE, SPACE = b"\n "
#: Rank of each byte in a number: a space, then a sign, then digits; all else is out.
_SIGN, DIGIT, _OTHER = 1, 3, 9
RANK = np.full(256, _OTHER, dtype=np.uint8)
RANK[SPACE], RANK[ord("-")], RANK[ord("0") : ord("9") + 1] = 0, _SIGN, DIGIT
NUMBER = re.compile(rb" *[+-]?[0-9]+ *")

Columns = npt.NDArray[np.uint8]


class PdbLines:
    """The lines of PDB text, as columns.

    Attributes
    ----------
    data : bytes
        The text, ending in a newline.
    starts, ends : (lines,) int64
        Index of each line's first byte and of its newline.
    is_atom : (lines,) bool
        ATOM and HETATM.
    """

    def __init__(self, data: bytes) -> None:
        self.whole = data.endswith(b"\n")
        self.data = data if self.whole else data + b"\n"
        self._bytes = np.frombuffer(self.data + b" " * WIDTH, dtype=np.uint8)
        self.ends = np.flatnonzero(self._bytes[: len(self.data)] == NEWLINE)
        self.starts = np.concatenate([[0], self.ends[:-1] + 1])
        names = self.columns(self.starts, 0, 6)
        short = np.flatnonzero(self.ends - self.starts <= 6)
        if len(short):  # what follows is the next line's
            beyond = self.starts[short, None] + np.arange(6) >= self.ends[short, None]
            names[short] = np.where(beyond, SPACE, names[short])
        # Six-digit serial numbers reach into the record name: "ATOM 100000".
        atom = names[:, :4].view(np.uint32)[:, 0] == np.frombuffer(b"ATOM", np.uint32)
        hetatm = names[:, :2].view(np.uint16)[:, 0] == np.frombuffer(b"HE", np.uint16)
        if hetatm.any():
            atom |= names.view("S6")[:, 0] == b"HETATM"
        self.is_atom = atom
        self._others = np.flatnonzero(~atom)
        self._records = names[self._others].view("S6")[:, 0]

    def columns(self, starts: Int64, first: int, stop: int) -> Columns:
        """Return (lines, stop - first) uint8: the same columns of each line, counted from 0."""
        width = stop - first
        # All overlapping windows of this width, without a copy. sliding_window_view would do the
        # same, but its checks cost more than all else here.
        shape = (len(self._bytes) - width + 1, width)
        windows: Columns = np.ndarray(shape, np.uint8, self._bytes, strides=(1, 1))
        return windows[starts + first]

    def of(self, name: bytes) -> Int64:
        """Return the lines of this record, whatever follows its name; not for atoms."""
        found: Int64 = self._others[self._records == name.ljust(6)]
        return found

    def text(self, line: int) -> bytes:
        """Return a line without its end."""
        return self.data[self.starts[line] : self.ends[line]]

    def is_last(self, line: int) -> bool:
        """Return whether only empty lines follow."""
        return bool((self.ends[line + 1 :] == self.starts[line + 1 :]).all())

    def end_of_first_model(self, atoms: Int64) -> int:
        """Return the line that ends the first model: ENDMDL, END, a second MODEL, or the last."""
        ends = np.concatenate([self.of(b"ENDMDL"), self.of(b"END"), self.of(b"MODEL")])
        return int(ends[ends > atoms[0]].min(initial=len(self.ends)))


def is_usual(fields: Columns, whole: int) -> bool:
    """Return whether (n, width) fields read "  -1" in the first ``whole`` columns, then ".234".

    This quick check accepts nearly every file. Fields that it does not accept are parsed one by
    one.
    """
    columns = np.ascontiguousarray(fields.T)  # numpy is slow on short rows
    ranks = RANK[columns]
    lead = ranks[:whole]
    # From left to right: spaces, at most one sign, digits up to the point.
    steps = lead[1:] - lead[:-1]
    return bool(
        lead.max() == DIGIT
        and steps.max() <= DIGIT
        and (lead[:-1] + lead[1:] != 2 * _SIGN).all()
        and (lead[-1] == DIGIT).all()
        and (columns[whole : whole + 1] == ord(".")).all()
        and (ranks[whole + 1 :] == DIGIT).all()
    )
