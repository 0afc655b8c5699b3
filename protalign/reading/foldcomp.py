"""Structures that Foldcomp compressed: their bytes are checked, then its library restores them.

The library trusts what it reads, and ends the process for some bytes. So each count is compared
with the length of the data before, and callers restore structures in a process of their own.
The format: Kim, Mirdita and Steinegger, Bioinformatics 2023, and the library's 1.0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from protalign.core.arrays import Float64, Int64
from protalign.core.errors import InputError
from protalign.reading.content import FETCH_AGAIN

#: Most bytes of a compressed structure: 20 a residue, and numbers of four digits.
MOST_BYTES = 1 << 20
_MAGIC = b"FCMP"
#: Residues, atoms, first residue number and atom number, anchors, chain, side chain angles, first
#: and last residue, length of the title, and the least value and step of six angles.
_HEADER = struct.Struct("<4HBc2xIcc2xI12f")
_BEGIN = len(_MAGIC) + _HEADER.size
#: The letters of the residues by their number, and the angles of each one's other atoms.
_LETTERS = "ARNDCQEGHILKMFPSTWYV"
_OTHER_ATOMS = np.array([2, 8, 5, 5, 3, 6, 6, 1, 7, 5, 5, 6, 5, 8, 4, 3, 4, 11, 9, 4])
#: PDB's columns hold numbers up to this.
_MOST_NUMBER = 9999
#: Largest coordinates, in Å, that leave room for the atoms around an anchor in PDB's columns.
_LEAST_PLACE, _MOST_PLACE = -990.0, 9990.0
#: The lengths in Å that the library builds N, CA and C with.
_C_N, _N_CA, _N_CA_OF_PROLINE, _CA_C = 1.3311, 1.4581, 1.353, 1.5281
#: Å that a segment's end may miss the next anchor, and more for each residue. At most 0.64 was seen
#: for segments of 25 residues and 1.27 for 200, and 1.5 or more if residues are missing.
_MISS, _MISS_PER_RESIDUE = 0.75, 0.0032
#: Degrees of CA-C-N and C-N-CA: 104 to 129 and 108 to 142 were seen in whole chains.
_CA_C_N, _C_N_CA = (85.0, 150.0), (85.0, 160.0)
#: Å by which a restored bond of the backbone may differ from what it is built with.
_BOND = 0.1
_GAP = (
    "its chain has a gap or is damaged: Foldcomp cannot restore it",
    "compress each piece of the chain by itself, or give the original file",
)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is checked of a compressed structure.

    Attributes
    ----------
    residues : (n,) int64
        Numbers of their letters.
    anchors : (a,) int64
        Residues whose N, CA and C are stored.
    places : (a, 3, 3) float64
        These atoms, in Å.
    angles : (n, 6) float64
        Phi, psi, omega, N-CA-C, CA-C-N and C-N-CA in degrees; what leads from a residue to the
        next one. The last row says nothing.
    plain : bytes
        The data without its title, which the library would write into its text as it is.
    """

    residues: Int64
    anchors: Int64
    places: Float64
    angles: Float64
    plain: bytes


def restore(data: bytes) -> bytes:
    """Return a compressed structure as PDB text: one chain, B-factors (or pLDDT) as they were.

    Parameters
    ----------
    data : bytes
        The content of a .fcz file, or an entry of a database.

    Returns
    -------
    bytes
        Coordinates are those of the original within some tenths of an Å.

    Raises
    ------
    InputError
        The data is damaged, or its chain had a gap, which Foldcomp does not keep; or the library is
        not installed.
    """
    parts = _parsed(data)
    check_library()
    import foldcomp

    _check_closed(parts)
    try:
        text = foldcomp.decompress(parts.plain)[1]
    except foldcomp.error:
        raise _damaged() from None
    restored = text.encode() if isinstance(text, str) else bytes(text)
    _check_bonds(restored, len(parts.residues))
    return restored + b"END\n"


def check_library() -> None:
    """Raise InputError if Foldcomp's library is not installed.

    Raises
    ------
    InputError
        It cannot be imported.
    """
    try:
        import foldcomp  # noqa: F401
    except ImportError:
        raise InputError(
            "the library that reads Foldcomp's files is not installed",
            "pip install 'protalign[foldcomp]'",
        ) from None


def _parsed(data: bytes) -> _Parts:
    """Return the parts; raise InputError unless their sizes are just those that the counts say."""
    if data[: len(_MAGIC)] == b"FCZC":
        raise InputError(
            "it is a container of several of Foldcomp's chains, which is not read",
            "compress each chain by itself",
        )
    if data[: len(_MAGIC)] != _MAGIC:
        raise InputError("it is not Foldcomp's data", FETCH_AGAIN)
    if len(data) > MOST_BYTES:
        raise InputError(f"it has more than {MOST_BYTES:,} bytes", "give the original file")
    if len(data) < _BEGIN:
        raise _damaged()
    header = _HEADER.unpack_from(data, len(_MAGIC))
    n, first, n_anchors, n_other, title = (header[index] for index in (0, 2, 4, 6, 9))
    sizes = (4 * n_anchors, title, 36 * n_anchors, 13, 8 * n, n_other, 8, n)
    ends = _BEGIN + np.cumsum(sizes)
    if len(data) != ends[-1] or n < 2 or n_anchors < 2:
        raise _damaged()
    if not 1 <= first + n <= _MOST_NUMBER + 1:
        raise InputError(
            f"its residues have numbers below 0 or above {_MOST_NUMBER:,}", "number them from 1"
        )
    anchors = np.frombuffer(data, "<i4", n_anchors, _BEGIN).astype(np.int64)
    places = np.frombuffer(data, "<f4", 9 * n_anchors, ends[1]).astype(np.float64)
    oxt = np.frombuffer(data, "<f4", 3, ends[2] + 1)
    rows = np.frombuffer(data, np.uint8, 8 * n, ends[3]).reshape(n, 8).astype(np.int64)
    scale = np.array([*header[10:], *struct.unpack_from("<2f", data, ends[5])])
    residues = rows[:, 0] >> 3
    whole = (
        (anchors[0], anchors[-1]) == (0, n - 1)
        and bool((np.diff(anchors) > 0).all())
        and residues.max() < len(_LETTERS)
        and n_other == _OTHER_ATOMS[residues].sum()
        and header[7] == _LETTERS[residues[0]].encode()
        and header[8] == _LETTERS[residues[-1]].encode()
        and header[5].isalnum() | (header[5] == b" ")
        and bool(np.isfinite(scale).all())
        and float(np.abs(scale).max()) < 1000
        and all(bool(((xyz > _LEAST_PLACE) & (xyz < _MOST_PLACE)).all()) for xyz in (places, oxt))
    )
    if not whole:
        raise _damaged()
    least, step = np.array(header[10:16]), np.array(header[16:22])
    numbers = [
        (rows[:, 3] & 15) << 8 | rows[:, 4],
        rows[:, 2] << 4 | rows[:, 3] >> 4,
        (rows[:, 0] & 7) << 8 | rows[:, 1],
        *(rows[:, 7], rows[:, 5], rows[:, 6]),
    ]
    angles = np.stack(numbers, axis=1) * step + least
    untitled = (*header[:9], 0, *header[10:])
    plain = _MAGIC + _HEADER.pack(*untitled) + data[_BEGIN : ends[0]] + data[ends[1] :]
    return _Parts(residues, anchors, places.reshape(-1, 3, 3), angles, plain)


def _damaged() -> InputError:
    return InputError("its Foldcomp data is damaged", FETCH_AGAIN)


def _check_closed(parts: _Parts) -> None:
    """Raise InputError unless each anchor, built from the one before, is where it is stored.

    Foldcomp builds a chain as if it had no gap. Its two directions then differ, and the mean of
    them that it writes is nowhere near the original.
    """
    angles = parts.angles[:-1]
    if (
        not _within(angles[:, 4], _CA_C_N)
        or not _within(angles[:, 5], _C_N_CA)
        or not _within(angles[:, 3], (60.0, 160.0))
    ):
        raise InputError(*_GAP)
    ones = np.ones(len(angles))
    n_ca = np.where(parts.residues[:-1] == _LETTERS.index("P"), _N_CA_OF_PROLINE, _N_CA)
    phi, psi, omega, n_ca_c, ca_c_n, c_n_ca = angles.T
    steps = np.stack(
        [
            _steps(_C_N * ones, ca_c_n, psi),
            _steps(n_ca, c_n_ca, omega),
            _steps(_CA_C * ones, n_ca_c, phi),
        ],
        axis=1,
    )
    for index in range(len(parts.anchors) - 1):
        begin, end = parts.anchors[index : index + 2]
        built = _frame(parts.places[index]) @ _product(steps[begin:end].reshape(-1, 4, 4))
        miss = float(np.linalg.norm(built[:3, 3] - parts.places[index + 1][2]))
        if not miss <= _MISS + _MISS_PER_RESIDUE * float(end - begin):
            raise InputError(*_GAP)


def _within(values: Float64, bounds: tuple[float, float]) -> bool:
    return bool(((values >= bounds[0]) & (values <= bounds[1])).all())


def _steps(lengths: Float64, angles: Float64, torsions: Float64) -> Float64:
    """Return (n, 4, 4) motions from an atom's frame to the next one's.

    In a frame x runs along the bond to its atom, and z is normal to that and the bond before.
    """
    angle, torsion = np.deg2rad(angles), np.deg2rad(torsions)
    motions = np.zeros((len(lengths), 4, 4))
    x = np.stack(
        [-np.cos(angle), np.cos(torsion) * np.sin(angle), np.sin(torsion) * np.sin(angle)], axis=1
    )
    z = np.stack([np.zeros_like(torsion), -np.sin(torsion), np.cos(torsion)], axis=1)
    motions[:, :3, 0], motions[:, :3, 1], motions[:, :3, 2] = x, np.cross(z, x), z
    motions[:, :3, 3] = x * lengths[:, None]
    motions[:, 3, 3] = 1.0
    return motions


def _frame(atoms: Float64) -> Float64:
    """Return the (4, 4) frame of the last of three atoms, (3, 3) in Å."""
    frame = np.eye(4)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = (atoms[2] - atoms[1]) / np.linalg.norm(atoms[2] - atoms[1])
        z = np.cross(atoms[1] - atoms[0], x)
        z = z / np.linalg.norm(z)
    frame[:3, 0], frame[:3, 1], frame[:3, 2], frame[:3, 3] = x, np.cross(z, x), z, atoms[2]
    return frame


def _product(motions: Float64) -> Float64:
    """Return the product of (n, 4, 4) motions, by halves."""
    while len(motions) > 1:
        last = motions[len(motions) // 2 * 2 :]
        motions = np.concatenate([motions[0:-1:2] @ motions[1::2], last])
    product: Float64 = motions[0]
    return product


def _check_bonds(text: bytes, residues: int) -> None:
    """Raise InputError unless the restored text has each residue's N, CA and C, bound as built."""
    atoms = [
        line
        for line in text.splitlines()
        if line.startswith(b"ATOM") and line[12:16] in (b" N  ", b" CA ", b" C  ")
    ]
    try:
        points = np.array([[float(line[at : at + 8]) for at in (30, 38, 46)] for line in atoms])
    except ValueError:
        raise _damaged() from None
    if len(points) != 3 * residues:
        raise _damaged()
    bonds = np.linalg.norm(np.diff(points, axis=0), axis=1)
    usual = np.resize([_N_CA, _CA_C, _C_N], len(bonds))
    if not bool((np.abs(bonds - usual) < _BOND + (usual == _N_CA) * _BOND).all()):
        raise InputError(*_GAP)
