"""Triton kernels of attention pooling: each row read once forward and once backward.

A batch's rows are those of its proteins one after another, wherever they lie in memory:
``offsets`` counts them through, and protein i's rows begin at row ``starts[i]`` of ``values``. The
programs share that count out evenly, whatever the lengths: a share may begin and end in the middle
of a protein, and the results of several shares for one protein are joined afterwards. A tile of
rows is brought on chip once, while the next ones are being loaded. There it gives both its products
with the heads' vectors and its weighted sum.

Tensor cores compute the products of float16 rows (``DOT``): a vector is split in two float16
numbers of 11 bits each, side by side in one operand, which loses nothing that float32 sums would
keep. The products of other rows, and all weighted sums, are float32 multiply-adds. Separate
programs work on more heads than ``HEADS``. They start side by side, so that all but the first read
the rows from the second-level cache.

A row of D numbers is two blocks, of ``MAIN`` and of ``TAIL`` columns, since Triton's blocks are
powers of two: ESM2's widths are mostly 5 * 2^k, where one block would waste three eighths. Each
warp has its columns: rows are (WARPS, ROWS, columns), vectors (WARPS, columns, HEADS), sums
(WARPS, 1, HEADS, columns), and numbers of a row and head (1, ROWS, HEADS).
"""

import triton
import triton.language as tl

#: Offsets that are searched at once for the protein in which a share begins.
SEARCHED = tl.constexpr(1024)
#: Factor by which the second part of a split number is scaled up: the first part's 11 bits.
FINER = tl.constexpr(2048.0)


@triton.jit
def _share(offsets, n_proteins):
    """Return the program's first and last row, and the protein of the first one."""
    total = tl.load(offsets + n_proteins)
    size = tl.cdiv(total, tl.num_programs(1))
    first = tl.program_id(1) * size
    protein = 0
    for begin in range(0, n_proteins, SEARCHED):
        index = begin + tl.arange(0, SEARCHED)
        end = tl.load(offsets + 1 + index, mask=index < n_proteins, other=total + 1)
        protein += tl.sum((end <= first).to(tl.int32))
    return first, tl.minimum(first + size, total), protein


@triton.jit
def _heads(HEADS: tl.constexpr, AXIS: tl.constexpr):
    """(1, 1, HEADS) numbers of this program's heads."""
    return tl.program_id(AXIS) * HEADS + tl.arange(0, HEADS)[None, None, :]


@triton.jit
def _columns(FIRST: tl.constexpr, COUNT: tl.constexpr, WARPS: tl.constexpr):
    """(WARPS, COUNT / WARPS) numbers of columns."""
    own: tl.constexpr = COUNT // WARPS
    return FIRST + tl.arange(0, WARPS)[:, None] * own + tl.arange(0, own)[None, :]


@triton.jit
def _rows(source, index, count, columns, D: tl.constexpr):
    """(WARPS, ROWS, columns) of the rows of a protein, 0 beyond the last."""
    index, columns = index[None, :, None], columns[:, None, :]
    return tl.load(source + index * D + columns, mask=(index < count) & (columns < D), other=0.0)


@triton.jit
def _vectors(source, columns, head, H: tl.constexpr, D: tl.constexpr):
    """(WARPS, columns, HEADS) of an (H, D) matrix."""
    columns = columns[:, :, None]
    return tl.load(source + head * D + columns, mask=(head < H) & (columns < D), other=0.0)


@triton.jit
def _sums(source, columns, head, H: tl.constexpr, D: tl.constexpr):
    """(WARPS, 1, HEADS, columns) of an (H, D) matrix."""
    head, columns = head[:, :, :, None], columns[:, None, None, :]
    return tl.load(source + head * D + columns, mask=(head < H) & (columns < D), other=0.0)


@triton.jit
def _store(target, columns, head, sums, H: tl.constexpr, D: tl.constexpr):
    head, columns = head[:, :, :, None], columns[:, None, None, :]
    tl.store(target + head * D + columns, sums, mask=(head < H) & (columns < D))


@triton.jit
def _largest(main, tail):
    """Return the largest of the numbers, by which they are divided; 1 if all are 0."""
    largest = tl.maximum(tl.max(tl.abs(main)), tl.max(tl.abs(tail)))
    return tl.where(largest > 0, largest, 1.0)


@triton.jit
def _ready(vectors, scale, DOT: tl.constexpr):
    """Vectors as ``_products`` takes them: divided and split, or (WARPS, 1, HEADS, columns)."""
    if DOT:
        vectors = vectors / scale
        high = vectors.to(tl.float16)
        low = ((vectors - high.to(tl.float32)) * FINER).to(tl.float16)
        shape: tl.constexpr = (vectors.shape[0], vectors.shape[1], 2 * vectors.shape[2])
        ready = tl.reshape(tl.join(high, low), shape)
    else:
        ready = tl.permute(vectors, (0, 2, 1))[:, None, :, :]
    return ready


@triton.jit
def _products(main, tail, main_vectors, tail_vectors, scale, DOT: tl.constexpr):
    """(1, ROWS, HEADS): each row times each vector."""
    if DOT:
        parts = tl.dot(tail, tail_vectors, tl.dot(main, main_vectors))
        parts = tl.sum(parts, axis=0, keep_dims=True)
        shape: tl.constexpr = (1, parts.shape[1], parts.shape[2] // 2, 2)
        high, low = tl.split(tl.reshape(parts, shape))
        products = scale * (high + low / FINER)
    else:
        products = tl.sum(main.to(tl.float32)[:, :, None, :] * main_vectors, axis=3)
        products += tl.sum(tail.to(tl.float32)[:, :, None, :] * tail_vectors, axis=3)
        products = tl.sum(products, axis=0, keep_dims=True)
    return products


@triton.jit
def _weighted(rows, weights):
    """(WARPS, 1, HEADS, columns): the sum over the rows, each times its weight for each head."""
    products = rows.to(tl.float32)[:, :, None, :] * weights[:, :, :, None]
    return tl.sum(products, axis=1, keep_dims=True)


@triton.jit
def _no_sums(HEADS: tl.constexpr, COUNT: tl.constexpr, WARPS: tl.constexpr):
    return tl.zeros((WARPS, 1, HEADS, COUNT // WARPS), tl.float32)


@triton.jit(do_not_specialize=["n_proteins"])
def pool_forward(
    values,
    starts,
    offsets,
    weight,
    scores,
    pooled,
    normaliser,
    parts,
    part_normaliser,
    n_proteins,
    H: tl.constexpr,
    D: tl.constexpr,
    HEADS: tl.constexpr,
    MAIN: tl.constexpr,
    TAIL: tl.constexpr,
    WARPS: tl.constexpr,
    DOT: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Scores (T, H) of a share's rows, and the attention sum of each protein that it holds whole.

    weight (H, D); pooled (n, H, D); normaliser (n, H): log of the sum of exp(score). Of the piece
    of a protein that other shares have pieces of, both go to ``parts`` and ``part_normaliser``: to
    slot 2 * share if the piece begins the share, and to the next slot if it only ends it.
    """
    first, last, protein = _share(offsets, n_proteins)
    row = first
    head = _heads(HEADS, 0)
    main, tail = _columns(0, MAIN, WARPS), _columns(MAIN, TAIL, WARPS)
    main_weight = _vectors(weight, main, head, H, D)
    tail_weight = _vectors(weight, tail, head, H, D)
    scale = _largest(main_weight, tail_weight)
    main_weight, tail_weight = _ready(main_weight, scale, DOT), _ready(tail_weight, scale, DOT)
    while row < last:
        begin, end = tl.load(offsets + protein), tl.load(offsets + protein + 1)
        until = tl.minimum(end, last)
        count = (until - row).to(tl.int32)
        source = values + (tl.load(starts + protein) + row - begin) * D
        highest = tl.full((1, 1, HEADS), float("-inf"), tl.float32)
        total = tl.zeros((1, 1, HEADS), tl.float32)
        main_sum, tail_sum = _no_sums(HEADS, MAIN, WARPS), _no_sums(HEADS, TAIL, WARPS)
        for done in tl.range(0, count, ROWS, num_stages=STAGES):
            index = done + tl.arange(0, ROWS)
            main_rows = _rows(source, index, count, main, D)
            tail_rows = _rows(source, index, count, tail, D)
            score = _products(main_rows, tail_rows, main_weight, tail_weight, scale, DOT)
            index = index[None, :, None]
            inside = index < count
            tl.store(scores + (row + index) * H + head, score, mask=inside & (head < H))
            score = tl.where(inside, score, float("-inf"))
            higher = tl.maximum(highest, tl.max(score, axis=1, keep_dims=True))
            attention, shrink = tl.exp(score - higher), tl.exp(highest - higher)
            total = total * shrink + tl.sum(attention, axis=1, keep_dims=True)
            main_sum = main_sum * shrink[:, :, :, None] + _weighted(main_rows, attention)
            tail_sum = tail_sum * shrink[:, :, :, None] + _weighted(tail_rows, attention)
            highest = higher
        if (row == begin) & (until == end):
            slot, sums, normalisers = protein, pooled, normaliser
        else:
            slot = 2 * tl.program_id(1) + (row > first).to(tl.int32)
            sums, normalisers = parts, part_normaliser
        place = slot.to(tl.int64) * H
        _store(sums + place * D, main, head, main_sum / total[:, :, :, None], H, D)
        _store(sums + place * D, tail, head, tail_sum / total[:, :, :, None], H, D)
        tl.store(normalisers + place + head, highest + tl.log(total), mask=head < H)
        row = until
        protein += 1


@triton.jit(do_not_specialize=["n_proteins", "shares"])
def join_parts(
    offsets,
    pooled,
    normaliser,
    parts,
    part_normaliser,
    n_proteins,
    shares,
    H: tl.constexpr,
    D: tl.constexpr,
    HEADS: tl.constexpr,
    MAIN: tl.constexpr,
    TAIL: tl.constexpr,
    WARPS: tl.constexpr,
):
    """Attention sum and normaliser of a protein that lies in several shares, out of its parts."""
    protein = tl.program_id(0)
    size = tl.cdiv(tl.load(offsets + n_proteins), shares)
    begin = tl.load(offsets + protein)
    share = begin // size
    last = (tl.load(offsets + protein + 1) - 1) // size
    if share == last:
        return
    head = _heads(HEADS, 1)
    main, tail = _columns(0, MAIN, WARPS), _columns(MAIN, TAIL, WARPS)
    highest = tl.full((1, 1, HEADS), float("-inf"), tl.float32)
    total = tl.zeros((1, 1, HEADS), tl.float32)
    main_sum, tail_sum = _no_sums(HEADS, MAIN, WARPS), _no_sums(HEADS, TAIL, WARPS)
    while share <= last:
        place = (2 * share + (begin > share * size).to(tl.int64)) * H
        own = tl.load(part_normaliser + place + head, mask=head < H, other=0.0)
        higher = tl.maximum(highest, own)
        portion, shrink = tl.exp(own - higher), tl.exp(highest - higher)
        total = total * shrink + portion
        shrink, portion = shrink[:, :, :, None], portion[:, :, :, None]
        main_sum = main_sum * shrink + portion * _sums(parts + place * D, main, head, H, D)
        tail_sum = tail_sum * shrink + portion * _sums(parts + place * D, tail, head, H, D)
        highest = higher
        share += 1
    place = protein.to(tl.int64) * H
    _store(pooled + place * D, main, head, main_sum / total[:, :, :, None], H, D)
    _store(pooled + place * D, tail, head, tail_sum / total[:, :, :, None], H, D)
    tl.store(normaliser + place + head, highest + tl.log(total), mask=head < H)


@triton.jit(do_not_specialize=["n_proteins"])
def pool_backward(
    values,
    starts,
    offsets,
    scores,
    pooled,
    normaliser,
    gradient,
    weight_gradients,
    n_proteins,
    H: tl.constexpr,
    D: tl.constexpr,
    HEADS: tl.constexpr,
    MAIN: tl.constexpr,
    TAIL: tl.constexpr,
    WARPS: tl.constexpr,
    DOT: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Write a share's part of the weight's gradient, (H, D), to its slot in ``weight_gradients``.

    gradient (n, H, D) is that of pooled. A row's score has the gradient
    attention * (row . gradient - pooled . gradient).
    """
    row, last, protein = _share(offsets, n_proteins)
    head = _heads(HEADS, 0)
    main, tail = _columns(0, MAIN, WARPS), _columns(MAIN, TAIL, WARPS)
    main_sum, tail_sum = _no_sums(HEADS, MAIN, WARPS), _no_sums(HEADS, TAIL, WARPS)
    while row < last:
        begin = tl.load(offsets + protein)
        until = tl.minimum(tl.load(offsets + protein + 1), last)
        count = (until - row).to(tl.int32)
        source = values + (tl.load(starts + protein) + row - begin) * D
        place = protein.to(tl.int64) * H
        own_normaliser = tl.load(normaliser + place + head, mask=head < H, other=0.0)
        main_gradient = _vectors(gradient + place * D, main, head, H, D)
        tail_gradient = _vectors(gradient + place * D, tail, head, H, D)
        mean = tl.sum(_vectors(pooled + place * D, main, head, H, D) * main_gradient, axis=1)
        mean += tl.sum(_vectors(pooled + place * D, tail, head, H, D) * tail_gradient, axis=1)
        mean = tl.sum(mean, axis=0)[None, None, :]
        scale = _largest(main_gradient, tail_gradient)
        main_gradient = _ready(main_gradient, scale, DOT)
        tail_gradient = _ready(tail_gradient, scale, DOT)
        for done in tl.range(0, count, ROWS, num_stages=STAGES):
            index = done + tl.arange(0, ROWS)
            main_rows = _rows(source, index, count, main, D)
            tail_rows = _rows(source, index, count, tail, D)
            by_attention = _products(main_rows, tail_rows, main_gradient, tail_gradient, scale, DOT)
            index = index[None, :, None]
            inside = (index < count) & (head < H)
            score = tl.load(scores + (row + index) * H + head, mask=inside, other=float("-inf"))
            by_score = tl.exp(score - own_normaliser) * (by_attention - mean)
            main_sum += _weighted(main_rows, by_score)
            tail_sum += _weighted(tail_rows, by_score)
        row = until
        protein += 1
    place = tl.program_id(1) * H
    _store(weight_gradients + place * D, main, head, main_sum, H, D)
    _store(weight_gradients + place * D, tail, head, tail_sum, H, D)
