"""Triton kernel of best diagonals: tiles of scores are summed along their diagonals on chip.

A program has one target and one query. It walks over bands of diagonals, each as wide as a tile.
The tiles of a band lie along it, and each of them is made by one product. Its rows are turned so
that a diagonal becomes a column: column c then has the diagonals c and c - TILE, whose sums are
``upper`` and ``lower``. ``lower`` completes the band before. So each score is made once, and only
the best diagonal's sum and offset leave the chip.

Tensor cores multiply float16 rows (``SPLIT``): a query's number is the sum of two float16 numbers,
which loses nothing that float32 sums would keep. Rows of float32 are multiplied in float32.
"""

import triton
import triton.language as tl

#: Factor by which the second part of a split number is scaled up: the first part's 11 bits.
FINER = tl.constexpr(2048.0)


@triton.jit
def _rows(source, first, index, length, K: tl.constexpr, WIDTH: tl.constexpr):
    """(TILE, WIDTH) rows of a protein that begins at row ``first``; 0 beyond its last."""
    column = tl.arange(0, WIDTH)
    inside = (index < length)[:, None] & (column < K)[None, :]
    return tl.load(source + (first + index[:, None]) * K + column[None, :], mask=inside, other=0.0)


@triton.jit
def _products(query, target, SPLIT: tl.constexpr):
    """(TILE, TILE) float32: each row of the query times each of the target."""
    if SPLIT:
        high = query.to(tl.float16)
        low = ((query - high.to(tl.float32)) * FINER).to(tl.float16)
        products = tl.dot(high, target.T) + tl.dot(low, target.T) / FINER
    else:
        products = tl.dot(query, target.T, input_precision="ieee")
    return products


@triton.jit
def best_diagonals(
    queries,
    query_offsets,
    targets,
    target_offsets,
    scores,
    offsets,
    floor,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Write the best diagonal's sum and offset of each query, (m, K) rows, with each target.

    queries (Q, K) float32, targets (R, K); scores (m, n) float32, offsets (m, n) int64. Of equal
    sums the smallest offset counts, and a positive one before a negative one.
    """
    target, query = tl.program_id(0), tl.program_id(1)
    n_targets = tl.num_programs(0)
    q_first, t_first = tl.load(query_offsets + query), tl.load(target_offsets + target)
    q_length = (tl.load(query_offsets + query + 1) - q_first).to(tl.int32)
    t_length = (tl.load(target_offsets + target + 1) - t_first).to(tl.int32)
    q_tiles, t_tiles = tl.cdiv(q_length, TILE), tl.cdiv(t_length, TILE)
    index = tl.arange(0, TILE)
    turned = (index[:, None] + index[None, :]) % TILE
    beyond = index[:, None] + index[None, :] >= TILE
    before = tl.zeros((TILE,), tl.float32)
    best, best_offset, best_order = float("-inf"), 0, 0
    for band in range(1 - q_tiles, t_tiles + 1):
        upper, lower = tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32)
        for tile in range(tl.maximum(0, -band), tl.minimum(q_tiles, t_tiles - band)):
            i, j = tile * TILE + index, (tile + band) * TILE + index
            query_rows = _rows(queries, q_first, i, q_length, K, WIDTH)
            target_rows = _rows(targets, t_first, j, t_length, K, WIDTH)
            products = tl.maximum(_products(query_rows, target_rows, SPLIT), floor)
            inside = (i < q_length)[:, None] & (j < t_length)[None, :]
            products = tl.gather(tl.where(inside, products, 0.0), turned, 1)
            upper += tl.sum(tl.where(beyond, 0.0, products), axis=0)
            lower += tl.sum(tl.where(beyond, products, 0.0), axis=0)
        offset = (band - 1) * TILE + index
        exists = (offset > -q_length) & (offset < t_length) & (t_length > 0)
        sums = tl.where(exists, before + lower, float("-inf"))
        highest = tl.max(sums)
        order = 2 * tl.abs(offset) - (offset > 0).to(tl.int32)
        first = tl.min(tl.where(sums == highest, order, 1 << 30))
        if (highest > best) | ((highest == best) & (first < best_order)):
            best, best_order = highest, first
            best_offset = tl.where(first % 2 == 1, (first + 1) // 2, -(first // 2))
        before = upper
    place = query.to(tl.int64) * n_targets + target
    tl.store(scores + place, best)
    tl.store(offsets + place, best_offset)
