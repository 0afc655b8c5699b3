"""Triton kernels of attention pooling: each row read once forward and once backward.

A batch's rows are those of its proteins one after another, wherever they lie in memory:
``offsets`` counts them through, and protein i's rows begin at row ``starts[i]`` of ``values``. The
programs share that count out evenly, whatever the lengths: a share may begin and end in the middle
of a protein, and what several shares found of one protein is put together afterwards. A tile of
rows is brought on chip once, and gives there both its products with the heads' vectors and its
weighted sum.

Sums are float32 multiply-adds, not tensor cores, which would round the weights. More heads than
``HEADS`` are worked on by programs of their own, started side by side, so that all but the first
find the rows in the second-level cache.

A row of D numbers is two blocks, of ``MAIN`` and of ``TAIL`` columns, since Triton's blocks are
powers of two: ESM2's widths are mostly 5 * 2^k, of which one block would waste three eighths.
Blocks are (rows, heads, columns) throughout, so that a thread keeps its columns of all rows and
heads.
"""

import triton
import triton.language as tl

#: Offsets that are searched at once for the protein in which a share begins.
SEARCHED = tl.constexpr(1024)


@triton.jit
def _share(offsets, n_proteins):
    """This program's rows of the batch, from where to where, and the protein of the first one."""
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
def _heads(HEADS: tl.constexpr):
    """(1, HEADS, 1) numbers of this program's heads."""
    return tl.program_id(0) * HEADS + tl.arange(0, HEADS)[None, :, None]


@triton.jit
def _columns(MAIN: tl.constexpr, TAIL: tl.constexpr, THREADS: tl.constexpr):
    """(1, 1, MAIN) and (1, 1, TAIL) columns."""
    return _spread(MAIN, THREADS)[None, None, :], MAIN + _spread(TAIL, THREADS)[None, None, :]


@triton.jit
def _spread(COUNT: tl.constexpr, THREADS: tl.constexpr):
    """0, 1, 2, …, said so that the compiler lays them across all threads, not more to some.

    It gives a thread as many neighbours as it knows to be contiguous, 16 bytes at most: of a
    block narrower than that, several rows would lie across the threads, and a sum over the rows
    would go from thread to thread.
    """
    each: tl.constexpr = max(1, COUNT // THREADS)
    place = tl.arange(0, COUNT)
    return place // each * each + place % each


@triton.jit
def _load(start, columns, there, D: tl.constexpr):
    return tl.load(start + columns, mask=there & (columns < D), other=0.0).to(tl.float32)


@triton.jit
def _store(start, columns, values, there, D: tl.constexpr):
    tl.store(start + columns, values, mask=there & (columns < D))


@triton.jit
def _sum(main, tail):
    """Over the columns, kept as one: first those of a thread, so that threads meet once."""
    rows: tl.constexpr = main.shape[0]
    heads: tl.constexpr = main.shape[1]
    width: tl.constexpr = tail.shape[2]
    folded = tl.reshape(main, (rows, heads, width, main.shape[2] // width))
    return tl.sum(tl.sum(folded, axis=3) + tail, axis=2, keep_dims=True)


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
    THREADS: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Scores (T, H) of a share's rows, and the attention sum of each protein that it holds whole.

    weight (H, D); pooled (n, H, D); normaliser (n, H): log of the sum of exp(score). Of the piece
    of a protein that other shares have pieces of, both go to slot protein + share of ``parts`` and
    ``part_normaliser``: along the batch either number grows by one from piece to piece.
    """
    row, last, protein = _share(offsets, n_proteins)
    head = _heads(HEADS)
    main, tail = _columns(MAIN, TAIL, THREADS)
    wanted = head < H
    main_weight = _load(weight + head * D, main, wanted, D)
    tail_weight = _load(weight + head * D, tail, wanted, D)
    while row < last:
        begin, end = tl.load(offsets + protein), tl.load(offsets + protein + 1)
        until = tl.minimum(end, last)
        count = (until - row).to(tl.int32)
        source = values + (tl.load(starts + protein) + row - begin) * D
        highest = tl.full((1, HEADS, 1), float("-inf"), tl.float32)
        total = tl.zeros((1, HEADS, 1), tl.float32)
        main_sum = tl.zeros((1, HEADS, MAIN), tl.float32)
        tail_sum = tl.zeros((1, HEADS, TAIL), tl.float32)
        for done in tl.range(0, count, ROWS, num_stages=STAGES):
            index = done + tl.arange(0, ROWS)[:, None, None]
            inside = index < count
            main_rows = _load(source + index * D, main, inside, D)
            tail_rows = _load(source + index * D, tail, inside, D)
            score = _sum(main_rows * main_weight, tail_rows * tail_weight)
            tl.store(scores + (row + index) * H + head, score, mask=inside & wanted)
            score = tl.where(inside, score, float("-inf"))
            higher = tl.maximum(highest, tl.max(score, axis=0, keep_dims=True))
            attention, shrink = tl.exp(score - higher), tl.exp(highest - higher)
            total = total * shrink + tl.sum(attention, axis=0, keep_dims=True)
            main_sum = main_sum * shrink + tl.sum(attention * main_rows, axis=0, keep_dims=True)
            tail_sum = tail_sum * shrink + tl.sum(attention * tail_rows, axis=0, keep_dims=True)
            highest = higher
        if (row == begin) & (until == end):
            slot, sums, normalisers = protein, pooled, normaliser
        else:
            slot, sums, normalisers = protein + tl.program_id(1), parts, part_normaliser
        place = slot.to(tl.int64) * H + head
        _store(sums + place * D, main, main_sum / total, wanted, D)
        _store(sums + place * D, tail, tail_sum / total, wanted, D)
        tl.store(normalisers + place, highest + tl.log(total), mask=wanted)
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
    THREADS: tl.constexpr,
):
    """Attention sum and normaliser of a protein that lies in several shares, out of its parts."""
    protein = tl.program_id(1)
    size = tl.cdiv(tl.load(offsets + n_proteins), shares)
    share = tl.load(offsets + protein) // size
    last = (tl.load(offsets + protein + 1) - 1) // size
    if share == last:
        return
    head = _heads(HEADS)
    main, tail = _columns(MAIN, TAIL, THREADS)
    wanted = head < H
    highest = tl.full((1, HEADS, 1), float("-inf"), tl.float32)
    total = tl.zeros((1, HEADS, 1), tl.float32)
    main_sum = tl.zeros((1, HEADS, MAIN), tl.float32)
    tail_sum = tl.zeros((1, HEADS, TAIL), tl.float32)
    while share <= last:
        place = (protein + share) * H + head
        own = tl.load(part_normaliser + place, mask=wanted, other=0.0)
        higher = tl.maximum(highest, own)
        portion, shrink = tl.exp(own - higher), tl.exp(highest - higher)
        total = total * shrink + portion
        main_sum = main_sum * shrink + portion * _load(parts + place * D, main, wanted, D)
        tail_sum = tail_sum * shrink + portion * _load(parts + place * D, tail, wanted, D)
        highest = higher
        share += 1
    place = protein.to(tl.int64) * H + head
    _store(pooled + place * D, main, main_sum / total, wanted, D)
    _store(pooled + place * D, tail, tail_sum / total, wanted, D)
    tl.store(normaliser + place, highest + tl.log(total), mask=wanted)


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
    THREADS: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """A share's part of the weight's gradient, (H, D), in slot share of ``weight_gradients``.

    gradient (n, H, D) is that of pooled. A row's score has the gradient
    attention * (row . gradient - pooled . gradient).
    """
    row, last, protein = _share(offsets, n_proteins)
    head = _heads(HEADS)
    main, tail = _columns(MAIN, TAIL, THREADS)
    wanted = head < H
    main_sum = tl.zeros((1, HEADS, MAIN), tl.float32)
    tail_sum = tl.zeros((1, HEADS, TAIL), tl.float32)
    while row < last:
        begin = tl.load(offsets + protein)
        until = tl.minimum(tl.load(offsets + protein + 1), last)
        count = (until - row).to(tl.int32)
        source = values + (tl.load(starts + protein) + row - begin) * D
        place = protein.to(tl.int64) * H + head
        own_normaliser = tl.load(normaliser + place, mask=wanted, other=0.0)
        main_gradient = _load(gradient + place * D, main, wanted, D)
        tail_gradient = _load(gradient + place * D, tail, wanted, D)
        main_pooled = _load(pooled + place * D, main, wanted, D)
        tail_pooled = _load(pooled + place * D, tail, wanted, D)
        mean = _sum(main_pooled * main_gradient, tail_pooled * tail_gradient)
        for done in tl.range(0, count, ROWS, num_stages=STAGES):
            index = done + tl.arange(0, ROWS)[:, None, None]
            inside = index < count
            main_rows = _load(source + index * D, main, inside, D)
            tail_rows = _load(source + index * D, tail, inside, D)
            score = tl.load(
                scores + (row + index) * H + head, mask=inside & wanted, other=float("-inf")
            )
            by_attention = _sum(main_rows * main_gradient, tail_rows * tail_gradient)
            by_score = tl.exp(score - own_normaliser) * (by_attention - mean)
            main_sum += tl.sum(by_score * main_rows, axis=0, keep_dims=True)
            tail_sum += tl.sum(by_score * tail_rows, axis=0, keep_dims=True)
        row = until
        protein += 1
    place = tl.program_id(1) * H + head
    _store(weight_gradients + place * D, main, main_sum, wanted, D)
    _store(weight_gradients + place * D, tail, tail_sum, wanted, D)
