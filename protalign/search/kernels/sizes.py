"""Sizes that make exact search quick. Results do not depend on them; tests pass others."""

from __future__ import annotations

from dataclasses import dataclass, field

from protalign.core.machine import processor_computes_in, thread_count

#: Rows of a group, of which the maximum is taken.
GROUP = 32


@dataclass(frozen=True)
class Bfloat16Sizes:
    """Sizes of products in bfloat16.

    Attributes
    ----------
    block_elements : int
        Similarities of a block: 2 MB of them.
    groups, again : float
        A block is multiplied in float32 if more than this part of its groups must be looked into,
        or of its similarities computed again.
    crowded : int
        After so many such blocks in a row, all the rest is multiplied in float32.
    timed : bool
        Compare the two products' time once, and use bfloat16 only if it is quicker.
    """

    block_elements: int = 1 << 20
    groups: float = 1 / 2
    again: float = 1 / 64
    crowded: int = 4
    timed: bool = True


@dataclass(frozen=True)
class ExactSizes:
    """Sizes that make exact search quick; results do not depend on them.

    Attributes
    ----------
    block_elements : int
        Similarities of a block: 1 MB of float32, which a usual second-level cache holds.
    first_rows : int
        Rows sorted outright, which give the first k-th best.
    queries_at_once : int
        Queries searched in one pass over the vectors.
    hits_at_once : int
        Hits kept in one pass, over all of its queries: fewer queries are in it if k is large.
    thread_elements : int
        Similarities per thread, at least: fewer are not worth a second thread.
    threads : int
        Most threads.
    rounded_batch, rounded_vectors, rounded_queries : int
        Vectors are rounded to bfloat16 for searches of at least so many queries in at least so
        many vectors, once more than so many queries have come: fewer do not pay for it.
    rounded : Bfloat16Sizes or None
        Sizes of products in bfloat16; None if the processor has no such hardware, or to do without.
    """

    block_elements: int = 1 << 18
    first_rows: int = 256
    queries_at_once: int = 256
    hits_at_once: int = 1 << 20
    thread_elements: int = 1 << 20
    threads: int = field(default_factory=thread_count)
    rounded_batch: int = 32
    rounded_vectors: int = 1 << 17
    rounded_queries: int = 256
    rounded: Bfloat16Sizes | None = field(
        default_factory=lambda: Bfloat16Sizes() if processor_computes_in("bfloat16") else None
    )
