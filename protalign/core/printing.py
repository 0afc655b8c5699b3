"""Text from files and users on one line of a terminal, a table or a page: nothing in it can act.

Names of files, ids and residues may hold anything. A line break would forge a line, a control
character would move a terminal's cursor, and a spreadsheet runs a cell that begins with "=".
"""

from __future__ import annotations

import re

_FORMULA = ("=", "+", "-", "@")
#: A URL from its host to the end of the word, and the beginning of a query in it: a name and "=",
#: or a long word.
_ADDRESS = re.compile(r"://\S*")
_QUERY = re.compile(r"[?#](?:[^?#=/]*=|[A-Za-z0-9%+_-]{32,}(?![.*\w]))")
#: What ends a sentence or its part around a URL.
_AFTER = ".,;:)]}'\""


def printable(text: object) -> str:
    r"""Return the text on one line, with every unprintable character as its escape in Python.

    Examples
    --------
    >>> print(printable("a.pdb\nb.pdb: fine"))
    a.pdb\nb.pdb: fine
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object, most: int = 300) -> str:
    r"""Return the first words of a text that another program gave, on one line.

    Parameters
    ----------
    text : object
        Often an exception. Nothing is returned if asking for its text raises.
    most : int
        Letters that are kept.

    Examples
    --------
    >>> one_line(ValueError("line 1\n  line 2"))
    'line 1 line 2'
    """
    try:
        words = str(text)
    except Exception:  # of an exception that somebody else wrote
        return ""
    return printable(" ".join(words[: 10 * most].split())[:most])


def table_cell(text: object) -> str:
    r"""Return the text as a cell of a CSV or TSV file: one line, and never a formula.

    An apostrophe is put before a text that a spreadsheet would take for a formula. ``cell_text``
    takes it away. Numbers must not be given to this function.

    Examples
    --------
    >>> table_cell("=1+1"), table_cell("1abc"), table_cell("a\tb")
    ("'=1+1", '1abc', 'a\\tb')
    """
    text = printable(text)
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def share(value: float) -> str:
    """Return a share of 0 to 1 in percent, rounded, but 0% and 100% only if it is none or all.

    Examples
    --------
    >>> share(0.0), share(0.0036), share(0.5), share(0.9964), share(1.0)
    ('0%', '<1%', '50%', '>99%', '100%')
    """
    if 0 < value <= 0.005:
        return "<1%"
    return ">99%" if 0.995 <= value < 1 else f"{value:.0%}"


def cell_text(cell: str) -> str:
    """Return the text that ``table_cell`` was given, if that was printable.

    Examples
    --------
    >>> cell_text(table_cell("@id")), cell_text("5'-end")
    ('@id', "5'-end")
    """
    return cell[1:] if cell.startswith("'") and cell[1:].lstrip("'").startswith(_FORMULA) else cell


def without_users(text: str) -> str:
    """Return a text in which URLs have no user and no password; ``without_secrets`` takes more.

    Examples
    --------
    >>> without_users("ftp://me:p@ss@host/shard-?.zarr")
    'ftp://host/shard-?.zarr'
    """
    return re.sub(r"(://)[^/\s]*@", r"\1", text)


def without_secrets(text: str) -> str:
    """Return a text in which URLs have no user, no password and no query.

    Signatures, tokens and keys stand in queries, under any name. A ``?`` that begins none stays: in
    the URL of a store it may stand for a letter.

    Examples
    --------
    >>> without_secrets("s3://key:secret@bucket/store.zarr: it is missing")
    's3://bucket/store.zarr: it is missing'
    >>> without_secrets("ftp://me:p@ss@host/store.zarr")
    'ftp://host/store.zarr'
    >>> without_secrets("https://host/store.zarr?sv=2024&sig=secret: it is missing; check s3://b/?.zarr")
    'https://host/store.zarr: it is missing; check s3://b/?.zarr'
    """
    return _ADDRESS.sub(_without_query, without_users(text))


def _without_query(address: re.Match[str]) -> str:
    word = address[0]
    query = _QUERY.search(word)
    return word if query is None else word[: query.start()] + word[len(word.rstrip(_AFTER)) :]
