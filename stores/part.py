"""Some entries of a store, sent to a process that has the store open."""

from __future__ import annotations

from dataclasses import dataclass

from protalign.core.arrays import Int64
from protalign.stores.store import EmbeddingStore, StoreView, restored_view


class StorePart:
    """Some entries of a store; pickled without the store, as row numbers and a digest of the ids.

    A view is pickled with its store, and who unpickles it looks at the store again, at every one of
    several. The many tasks of one function do without that: the function has the store.

    Parameters
    ----------
    view : StoreView
        The entries.

    Examples
    --------
    >>> import pickle, tempfile
    >>> from protalign import embed
    >>> path = tempfile.mkdtemp() + "/store.zarr"
    >>> report = embed("examples/sample/1bpi_A.cif", path, ["protalign_t6_2M"])
    >>> store = EmbeddingStore.open(path)
    >>> pickle.loads(pickle.dumps(StorePart(store[:1]))).of(store).ids.tolist()
    ['1bpi_A']
    """

    def __init__(self, view: StoreView) -> None:
        self._view = view

    def of(self, store: EmbeddingStore) -> StoreView:
        """Return the entries as a view of their store, as this process has opened it.

        Raises
        ------
        StoreError
            The store has other entries.
        """
        assert store is self._view.store, "a part of another store"
        return self._view

    def __reduce__(self) -> tuple[object, ...]:
        return _SentPart, (self._view.entry_rows, self._view.fingerprint())


@dataclass(frozen=True, slots=True, eq=False)
class _SentPart:
    """A part that was unpickled."""

    entry_rows: Int64
    fingerprint: bytes

    def of(self, store: EmbeddingStore) -> StoreView:
        return restored_view(store, self.entry_rows, self.fingerprint)
