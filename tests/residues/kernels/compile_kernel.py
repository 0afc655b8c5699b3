"""Compile the kernel of best diagonals for GPUs that this machine need not have.

It prints a line for each kind: name, architecture, dtype, bytes of on-chip memory.
"""

from __future__ import annotations

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from protalign.residues.kernels.diagonals import launch_options
from protalign.residues.kernels.diagonals_triton import best_diagonals

TYPES = {
    "queries": "*fp32",
    "query_offsets": "*i64",
    "target_offsets": "*i64",
    "scores": "*fp32",
    "offsets": "*i64",
    "floor": "fp32",
}
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def compiled(capability: int, dtype: str) -> int:
    """Compile the kernel; return the bytes of on-chip memory that a program takes."""
    options = launch_options(50, DTYPES[dtype])
    warps = options.pop("num_warps")
    types = TYPES | {"targets": f"*{dtype}"}
    names = best_diagonals.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    constants = {(i,): options[name] for i, name in enumerate(names) if name in options}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name].startswith("*")
    }
    source = ASTSource(best_diagonals, signature, constants, aligned)
    target = GPUTarget("cuda", capability, 32)
    return int(triton.compile(source, target=target, options={"num_warps": warps}).metadata.shared)


if __name__ == "__main__":
    for capability, dtype in ((80, "fp32"), (90, "fp16")):
        print("best_diagonals", capability, dtype, compiled(capability, dtype))
