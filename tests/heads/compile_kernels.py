"""Compile the pooling kernels for GPUs that this machine need not have; a test runs this.

It prints a line for each kernel: name, architecture, D, dtype, bytes of on-chip memory.
"""

from __future__ import annotations

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from protalign.heads.kernels import fused_triton as pooling_kernels
from protalign.heads.kernels.fused import _Launch

INTEGERS = {"n_proteins": "i32", "shares": "i32", "starts": "*i64", "offsets": "*i64"}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
KERNELS = (
    pooling_kernels.pool_forward,
    pooling_kernels.join_parts,
    pooling_kernels.pool_backward,
)


def compiled(kernel: triton.JITFunction, capability: int, dim: int, heads: int, dtype: str) -> int:
    """Compile a kernel; return the bytes of on-chip memory that a program takes."""
    values = torch.empty(1, dim, dtype=DTYPES[dtype], device="meta")
    launch = _Launch.of(dim, heads, values)
    options = launch.constants | launch.of_rows
    warps = options.pop("num_warps")
    types = INTEGERS | {"values": f"*{dtype}"}
    names = kernel.arg_names
    signature = {n: "constexpr" if n in options else types.get(n, "*fp32") for n in names}
    constants = {(i,): options[n] for i, n in enumerate(names) if n in options}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name].startswith("*")
    }
    source = ASTSource(kernel, signature, constants, aligned)
    target = GPUTarget("cuda", capability, 32)
    return int(triton.compile(source, target=target, options={"num_warps": warps}).metadata.shared)


if __name__ == "__main__":
    for capability in (80, 90):
        for dim, heads, dtype in ((1280, 4, "fp16"), (2560, 3, "fp32")):
            for kernel in KERNELS:
                shared = compiled(kernel, capability, dim, heads, dtype)
                print(kernel.__name__, capability, dim, dtype, shared)
