"""Hybrid-36: residue numbers above 9999 in the four columns that PDB gives them."""


def from_hybrid(field: bytes) -> int:
    """Return the number of a hybrid-36 field of four characters.

    Examples
    --------
    >>> from_hybrid(b"A000"), from_hybrid(b"a000")
    (10000, 1223056)
    """
    base = 10 * 36**3
    offset = 10000 - base if field[:1].isupper() else 10000 + 26 * 36**3 - base
    return int(field, 36) + offset


def to_hybrid(number: int) -> bytes:
    """Return a number above 9999 as a hybrid-36 field of four characters.

    Examples
    --------
    >>> to_hybrid(10000), to_hybrid(from_hybrid(b"b2z9"))
    (b'A000', b'b2z9')
    """
    number -= 10000
    lower = number >= 26 * 36**3
    value = number - (26 * 36**3 if lower else 0) + 10 * 36**3
    digits = b""
    while value:
        value, digit = divmod(value, 36)
        digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit : digit + 1] + digits
    return digits.lower() if lower else digits
