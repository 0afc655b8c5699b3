"""Both encoders on a GPU, each against its reference; gpu.py runs this."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from esm.model.esm2 import ESM2
from torch import Tensor

from benchmarks.shared.measuring import SAMPLE, Summary, times_faster
from benchmarks.speed.esm2 import read_sequences
from benchmarks.speed.gpu_clock import Clock, Limits, median, smallest_cosine
from benchmarks.speed.proteinmpnn import (
    MODEL,
    read_structures,
    reference_embedding,
    reference_input,
    reference_network,
)
from protalign.encoders import EncoderSpec, load_encoder
from protalign.encoders.esm2.network import PackedESM2
from protalign.encoders.esm2.weights import ARCHITECTURES

#: Tokens of a batch, on both sides.
TOKENS = 16_384
OURS, WITH_COPY, PEER = "protalign", "protalign, copied to the host", "fair-esm"
ENCODED, REFERENCE = "protalign's encoder", "reference code"


def measure_esm2(
    clock: Clock, limits: Limits, model: str, residues: int
) -> tuple[dict[str, Any], Summary]:
    """Measure forward passes of sequences in bfloat16 on the device, packed and padded."""
    size, device = ARCHITECTURES[model], clock.device
    torch.manual_seed(0)
    with device:
        peer = ESM2(size.layers, size.dim, size.heads, "ESM-1b").eval()
    sequences = sorted(read_sequences(SAMPLE, residues), key=len)
    state = {name: value.cpu() for name, value in peer.state_dict().items()}  # as from a file
    ours = PackedESM2(size, state, layer=size.layers, device=device, dtype=torch.bfloat16)
    half = copy.deepcopy(peer).bfloat16()  # before use: rotary embeddings cache their tables
    convert = peer.alphabet.get_batch_converter()
    batches = list(token_batches(sequences))
    padded = [convert([("", each) for each in batch])[2] for batch in batches]
    lengths = [[len(each) + 2 for each in batch] for batch in batches]
    packed = unpadded(padded, lengths)

    def forward() -> list[Tensor]:
        return [ours(tokens, counts) for tokens, counts in zip(packed, lengths, strict=True)]

    @torch.inference_mode()
    def fair_esm(network: ESM2) -> list[Tensor]:
        outputs = []
        for tokens in padded:
            out = network(tokens.to(device), repr_layers=[size.layers], return_contacts=False)
            outputs.append(out["representations"][size.layers])
        return outputs

    exact = unpadded(fair_esm(peer), lengths)
    cosine = smallest_cosine(forward(), exact)
    del exact, peer
    sides: dict[str, Callable[[], object]] = {
        OURS: forward,
        WITH_COPY: lambda: [rows.cpu() for rows in forward()],
        PEER: lambda: fair_esm(half),
    }
    seconds = clock.turns(sides)
    operations = sum(
        n * (24 * size.layers * size.dim**2 + 4 * size.layers * size.dim * n)
        for counts in lengths
        for n in counts
    )
    count = sum(map(len, sequences))
    per_second = {name: count / median(taken) for name, taken in seconds.items()}
    share = operations / median(seconds[OURS]) / limits.bfloat16_peak
    row = {"part": model, "residues": count, "operations": operations, "share_of_peak": share,
           "residues_per_second": per_second, "smallest_cosine": cosine}  # fmt: skip
    return row, {
        "part": f"{model}, bfloat16",
        "peer": "fair-esm's model, bfloat16, padded batches by length",
        "ratio": times_faster(seconds, PEER, OURS),
        "target": None,
        "figure": f"{per_second[OURS]:,.0f} residues/s; copied to the host "
        f"{per_second[WITH_COPY]:,.0f}",
        "limit": f"{share:.0%} of the matrix product's {limits.bfloat16_peak / 1e12:,.0f} "
        "TFLOP/s (the target is half)",
        "equal": f"cosine {cosine:.5f} at least, to float32",
    }


def unpadded(batches: list[Tensor], lengths: list[list[int]]) -> list[Tensor]:
    """Return each batch's rows one after another, without the padding."""
    return [
        torch.cat([row[:n] for row, n in zip(rows, counts, strict=True)])
        for rows, counts in zip(batches, lengths, strict=True)
    ]


def token_batches(sequences: list[str]) -> Iterator[list[str]]:
    """Yield sequences of ascending length, as many as fit, padded, into ``TOKENS``."""
    batch: list[str] = []
    for sequence in sequences:
        if batch and (len(batch) + 1) * (len(sequence) + 2) > TOKENS:
            yield batch
            batch = []
        batch.append(sequence)
    yield batch


def measure_proteinmpnn(clock: Clock, residues: int) -> tuple[dict[str, Any], Summary]:
    """Measure the encoder on a batch of complexes in bfloat16, and the reference one by one."""
    device = clock.device
    structures = read_structures(SAMPLE, residues, longest=1000)
    encoder = load_encoder(EncoderSpec(MODEL, device=str(device), dtype="bfloat16"))
    network = reference_network().to(device)
    inputs = [[part.to(device) for part in reference_input(each)] for each in structures]

    def encoded() -> list[Tensor]:
        return [torch.from_numpy(rows) for rows in encoder.encode(structures)]

    @torch.inference_mode()
    def reference() -> list[Tensor]:
        with device:  # the reference code makes tensors itself
            return [reference_embedding(network, *tensors).cpu() for tensors in inputs]

    cosine = smallest_cosine(encoded(), reference())
    seconds = clock.turns({ENCODED: encoded, REFERENCE: reference})
    count = sum(map(len, structures))
    per_second = {name: count / median(taken) for name, taken in seconds.items()}
    row = {"part": MODEL, "residues": count, "residues_per_second": per_second,
           "smallest_cosine": cosine}  # fmt: skip
    return row, {
        "part": "ProteinMPNN's encoder, bfloat16",
        "peer": "reference code, one at a time, float32",
        "ratio": times_faster(seconds, REFERENCE, ENCODED),
        "target": None,
        "figure": f"{per_second[ENCODED]:,.0f} residues/s",
        "limit": "none measured: the encoder also searches for neighbours",
        "equal": f"cosine {cosine:.5f} at least, to float32",
    }
