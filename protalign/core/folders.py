"""What a folder is that ProtAlign wrote, by the document in it."""

from __future__ import annotations

from pathlib import Path

#: The document of each kind of folder but a store, the kind, and files that only it has.
DOCUMENTS = {
    "config.json": ("a model", "*.safetensors"),
    "vectors.json": ("a folder of vectors", "part-*.parquet"),
    "vector-index.json": ("an index of vectors", "*_centroids.npy"),
    "index.json": ("an index of words", "segment-*/*.words"),
}


def kind_of(path: Path) -> str:
    """Return the kind of folder whose document is there; "" if there is none, or nobody can tell.

    Examples
    --------
    >>> kind_of(Path("protalign/encoders")), kind_of(Path("x" * 5000))
    ('', '')
    """
    for document, (kind, _) in DOCUMENTS.items():
        try:
            if (path / document).is_file():
                return kind
        except OSError:  # not to be looked at, or no name of a file
            return ""
    return ""
