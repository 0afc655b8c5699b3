"""The pooling head: residues of one protein in, one unit-length vector out, without padding.

The head is the paper's Eq. 1: one learnable query token attends to the residues (multi-head
attention), then LayerNorm, then unit length. Because the query is one vector per head, no residue
is ever projected:

    scores_h = z (W_k,h^T q_h)          one (D, n_heads) product over all residues of a batch
    pooled_h = sum_t softmax(scores_h)_t z_t
    heads_h  = W_v,h pooled_h + b_v,h   on the pooled rows only

which equals ``torch.nn.MultiheadAttention`` with far fewer operations and no padding. The key's
bias adds the same number to every residue's score, so the softmax removes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from protalign.ragged import Ragged

Result = TypeVar("Result")

#: Rows that one small matrix product sums over; a protein of 200 rows spans three or four tiles.
_TILE_ROWS = 64
#: Elements of a block held in the compute dtype: about one core's cache on a CPU, and enough to
#: keep every multiprocessor busy on a GPU.
_BLOCK_ELEMENTS = {"cpu": 1 << 19}
_BLOCK_ELEMENTS_ACCELERATOR = 1 << 26


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Whole tiles of one length inside a block, and which proteins each tile touches.

    Attributes
    ----------
    rows : slice of the block's rows, ``tiles * tile`` of them.
    tile : rows of one tile.
    slots : most proteins that any tile of the piece touches.
    places : (rows,) int64, ``row * slots + (the row's protein - its tile's first protein)``.
    proteins : (tiles * slots,) int64 indices into the batch, repeated where a slot is unused.
    """

    rows: slice
    tile: int
    slots: int
    places: Tensor
    proteins: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Consecutive whole proteins of a batch that are worked on at once.

    Attributes
    ----------
    rows, proteins : slices of the batch.
    lengths : (proteins,) int64.
    segments : (rows,) int64, the protein of each row, counted from the block's first.
    """

    rows: slice
    proteins: slice
    lengths: Tensor
    segments: Tensor
    pieces: tuple[_Piece, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """Rows of n proteins on a device, with the plan of how to walk through them.

    Attributes
    ----------
    values : (R, D) float16, bfloat16, float32 or float64 tensor.
    lengths : (n,) int64 rows of each protein.
    """

    values: Tensor
    lengths: Tensor
    blocks: tuple[_Block, ...]

    @classmethod
    def from_ragged(cls, rows: Ragged, device: torch.device | str = "cpu") -> PackedBatch:
        """Move packed rows to a device; raises ValueError where a protein has no row."""
        values = torch.from_numpy(np.require(rows.values, requirements=["C", "W"]))
        return cls.from_tensor(values.to(device), rows.offsets)

    @classmethod
    def from_tensor(cls, values: Tensor, offsets: npt.NDArray[np.int64]) -> PackedBatch:
        """Rows that are a tensor already; ``offsets`` (n + 1,) as in ``Ragged``."""
        lengths = np.diff(offsets)
        if np.any(lengths < 1):
            raise ValueError("every protein needs at least one row to be pooled")
        blocks = _plan(offsets, values.shape[1], values.device)
        return cls(values, torch.from_numpy(lengths).to(values.device), blocks)


def _plan(offsets: npt.NDArray[np.int64], dim: int, device: torch.device) -> tuple[_Block, ...]:
    elements = _BLOCK_ELEMENTS.get(device.type, _BLOCK_ELEMENTS_ACCELERATOR)
    row_limit = max(_TILE_ROWS, elements // dim)
    blocks = []
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + row_limit, side="right")) - 1
        last = max(last, first + 1)  # a protein above the limit is a block of its own
        blocks.append(_block(offsets, first, last, device))
        first = last
    return tuple(blocks)


def _block(offsets: npt.NDArray[np.int64], first: int, last: int, device: torch.device) -> _Block:
    lengths = np.diff(offsets[first : last + 1])
    rows = int(lengths.sum())
    segments = np.repeat(np.arange(last - first), lengths)
    # Tiles longer than the proteins would mostly hold zeros (a 2-D array is proteins of one row).
    tile = min(_TILE_ROWS, 1 << int(math.log2(rows / len(lengths))))
    whole = rows // tile * tile
    pieces = [_piece(segments, first, 0, whole, tile, device)]
    if whole < rows:
        pieces.append(_piece(segments, first, whole, rows, rows - whole, device))
    return _Block(
        rows=slice(int(offsets[first]), int(offsets[last])),
        proteins=slice(first, last),
        lengths=torch.from_numpy(lengths).to(device),
        segments=torch.from_numpy(segments).to(device),
        pieces=tuple(pieces),
    )


def _piece(
    segments: npt.NDArray[np.int64],
    first: int,
    start: int,
    stop: int,
    tile: int,
    device: torch.device,
) -> _Piece:
    tiles = segments[start:stop].reshape(-1, tile)
    slot = tiles - tiles[:, :1]
    slots = int(slot.max()) + 1
    places = np.arange(stop - start) * slots + slot.ravel()
    proteins = np.minimum(tiles[:, :1] + np.arange(slots), segments[-1]) + first
    return _Piece(
        rows=slice(start, stop),
        tile=tile,
        slots=slots,
        places=torch.from_numpy(places).to(device),
        proteins=torch.from_numpy(proteins.ravel()).to(device),
    )


def _add_weighted_sums(pooled: Tensor, block: _Block, weights: Tensor, rows: Tensor) -> None:
    """Add ``sum_t weights[t, h] rows[t]`` of each protein to its place in ``pooled`` (n, H, D)."""
    n_heads, dim = pooled.shape[1:]
    for piece in block.pieces:
        tiles = rows[piece.rows].view(-1, piece.tile, dim)
        spread = weights.new_zeros(len(piece.places) * piece.slots, n_heads)
        spread[piece.places] = weights[piece.rows]
        spread = spread.view(-1, piece.tile, piece.slots * n_heads)
        sums = torch.bmm(spread.transpose(1, 2), tiles)
        pooled.index_add_(0, piece.proteins, sums.view(-1, n_heads, dim))


def _dot_with_own(vectors: Tensor, block: _Block, rows: Tensor) -> Tensor:
    """``rows[t] . vectors[protein of t, h]``: (rows, H), for vectors (n, H, D)."""
    n_heads, dim = vectors.shape[1:]
    products = []
    for piece in block.pieces:
        tiles = rows[piece.rows].view(-1, piece.tile, dim)
        own = vectors[piece.proteins].view(len(tiles), -1, dim)
        every = torch.bmm(own, tiles.transpose(1, 2))  # much faster than tiles @ own.T
        products.append(every.transpose(1, 2).reshape(-1, n_heads)[piece.places])
    return torch.cat(products)


def _for_each_block(batch: PackedBatch, work: Callable[[_Block], Result]) -> list[Result]:
    """Run ``work`` on every block, without gradients; returns what it gave, in order.

    On a CPU the blocks are shared out among torch's number of threads, each of which computes
    alone: the operations are too small to be split, and threads that meet at the end of each one
    spend their time waiting, above all where other programs keep the cores busy. The numbers do
    not depend on how many threads there are.
    """

    inference = torch.is_inference_mode_enabled()

    def work_alone(block: _Block) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # each thread has its own state
            return work(block)

    threads = torch.get_num_threads()
    workers = min(threads, len(batch.blocks)) if batch.values.device.type == "cpu" else 1
    if workers == 1:
        return [work_alone(block) for block in batch.blocks]
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work_alone, batch.blocks))
    finally:
        # It counts for the calling thread, and for those that start later: for them, as it was.
        torch.set_num_threads(threads)


class _AttentionPooling(torch.autograd.Function):
    """Softmax-weighted sums of packed rows, reading the rows once forward and once backward.

    With a = softmax(z w) over a protein's rows and pooled = sum_t a_t z_t, the gradient of the
    scores is a_t (z_t . g - sum_s a_s z_s . g) = a_t (z_t . g - pooled . g), g being the gradient
    of pooled: the softmax's correction needs no second pass over the rows.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, batch: PackedBatch) -> Tensor:
        """values (R, D), weight (D, H) in the compute dtype -> pooled (n, H, D)."""
        dim, n_heads = weight.shape
        by_head = weight.T.contiguous()
        pooled = weight.new_zeros(len(batch.lengths), n_heads, dim)
        attention = weight.new_empty(len(values), n_heads)

        def pool(block: _Block) -> None:
            rows = values[block.rows].to(weight.dtype)
            scores = (by_head @ rows.T).T.contiguous()  # much faster than rows @ weight
            highest = torch.segment_reduce(scores, "max", lengths=block.lengths, axis=0)
            scores = (scores - highest[block.segments]).exp_()
            attention[block.rows] = scores
            _add_weighted_sums(pooled, block, scores, rows)

        _for_each_block(batch, pool)
        total = torch.segment_reduce(attention, "sum", lengths=batch.lengths, axis=0)
        attention /= total.repeat_interleave(batch.lengths, dim=0)
        pooled /= total[:, :, None]
        ctx.save_for_backward(values, weight, attention, pooled)
        ctx.batch = batch
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (gradient,) = gradients
        values, weight, attention, pooled = ctx.saved_tensors
        gradient = gradient.contiguous()
        correction = (pooled * gradient).sum(dim=2).repeat_interleave(ctx.batch.lengths, dim=0)
        d_values = torch.empty_like(values) if ctx.needs_input_grad[0] else None

        def differentiate(block: _Block) -> Tensor:
            """The block's part of the weight's gradient, (H, D)."""
            rows = values[block.rows].to(weight.dtype)
            own = attention[block.rows]
            d_scores = _dot_with_own(gradient, block, rows)
            d_scores = (d_scores - correction[block.rows]) * own
            if d_values is not None:
                upstream = gradient[block.proteins][block.segments]
                through_sum = torch.einsum("th,thd->td", own, upstream)
                d_values[block.rows] = (through_sum + d_scores @ weight.T).to(values.dtype)
            part: Tensor = d_scores.T @ rows  # much faster than rows.T @ d_scores
            return part

        d_weight = torch.stack(_for_each_block(ctx.batch, differentiate)).sum(dim=0)
        return d_values, d_weight.T, None


class PoolingHead(nn.Module):
    """One learnable query token, multi-head attention, LayerNorm, unit length (paper, Eq. 1).

    Equal to ``nn.MultiheadAttention(embed_dim, n_heads, kdim=input_dim, vdim=input_dim)`` with the
    token as query and the residues as keys and values, then ``nn.LayerNorm(embed_dim)``, then
    division by the length; parameters have that module's names and shapes under ``attention``, and
    its packed form (``in_proj_weight``, used where ``input_dim == embed_dim``) is read too. Scores
    are divided by sqrt(embed_dim / n_heads), as multi-head attention does; the paper's Eq. 1
    prints sqrt(D), which is the same thing up to the scale of the learned query.

    Parameters
    ----------
    input_dim : D, width of a residue's embedding.
    embed_dim : width of the vectors given back.
    n_heads : must divide ``embed_dim``.
    """

    def __init__(self, input_dim: int, embed_dim: int = 128, n_heads: int = 4) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(embed_dim))
        self.attention = _AttentionParameters(input_dim, embed_dim, n_heads)
        self.norm = nn.LayerNorm(embed_dim)
        nn.init.normal_(self.query, std=0.02)

    def forward(self, batch: PackedBatch) -> Tensor:
        """(n, embed_dim) unit-length vectors in the parameters' dtype."""
        vectors = self.norm(self.attention(self.query, batch))
        return functional.normalize(vectors, dim=-1)

    @property
    def embed_dim(self) -> int:
        """Width of the vectors given back."""
        return len(self.query)

    def residue_weights(self, batch: PackedBatch) -> Tensor:
        """(R, n_heads) attention of each row; over a protein's rows each head's sum to 1.

        What ``nn.MultiheadAttention`` gives with ``average_attn_weights=False``.
        """
        return self.attention.residue_weights(self.query, batch)


class _AttentionParameters(nn.Module):
    """``nn.MultiheadAttention``'s parameters, for one query token shared by all proteins."""

    def __init__(self, input_dim: int, embed_dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj_weight = nn.Parameter(torch.empty(embed_dim, embed_dim))
        self.k_proj_weight = nn.Parameter(torch.empty(embed_dim, input_dim))
        self.v_proj_weight = nn.Parameter(torch.empty(embed_dim, input_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        for weight in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.out_proj.bias)
        self.register_load_state_dict_pre_hook(_split_in_proj_weight)  # type: ignore[no-untyped-call]

    def forward(self, query: Tensor, batch: PackedBatch) -> Tensor:
        """query (E,) -> (n, E), the attention's output before LayerNorm."""
        weight = self._score_weight(query)
        pooled: Tensor = _AttentionPooling.apply(batch.values, weight, batch)  # type: ignore[no-untyped-call]
        values = self.v_proj_weight.view(self.n_heads, len(query) // self.n_heads, -1)
        bias_v = self.in_proj_bias.chunk(3)[2]
        heads = torch.einsum("nhd,hkd->nhk", pooled, values).flatten(1) + bias_v
        return self.out_proj(heads)  # type: ignore[no-any-return]

    def residue_weights(self, query: Tensor, batch: PackedBatch) -> Tensor:
        """query (E,) -> (R, n_heads), the softmax of each protein's scores."""
        weight = self._score_weight(query)
        proteins = batch.values.split(batch.lengths.tolist())
        return torch.cat([(rows.to(weight.dtype) @ weight).softmax(dim=0) for rows in proteins])

    def _score_weight(self, query: Tensor) -> Tensor:
        """(D, n_heads): a residue's embedding times this is its score for each head."""
        bias_q = self.in_proj_bias.chunk(3)[0]
        head_dim = len(query) // self.n_heads
        q = (self.q_proj_weight @ query + bias_q).view(self.n_heads, head_dim)
        keys = self.k_proj_weight.view(self.n_heads, head_dim, -1)
        return torch.einsum("hk,hkd->dh", q / math.sqrt(head_dim), keys)


def _split_in_proj_weight(
    module: nn.Module, state: dict[str, Tensor], prefix: str, *unused: object
) -> None:
    """Read the packed form that nn.MultiheadAttention keeps where kdim == vdim == embed_dim."""
    packed = state.pop(prefix + "in_proj_weight", None)
    if packed is not None:
        for name, weight in zip("qkv", packed.chunk(3), strict=True):
            state[f"{prefix}{name}_proj_weight"] = weight
