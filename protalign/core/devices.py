"""Devices, compute dtypes, and batches that are halved if memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TypeVar

import torch

from protalign.core.errors import InputError
from protalign.core.machine import processor_computes_in

Item = TypeVar("Item")
Output = TypeVar("Output")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

#: The oldest GPUs that Triton supports.
_CAPABILITY = (8, 0)

#: Memory that torch's threads and matrix multiplications take for themselves, measured on a CPU.
WORKSPACE_BYTES = 24 * 2**20

_logger = logging.getLogger("protalign")


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device that a name stands for; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises InputError if torch does not know the name, or this machine does not have the device.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {name!r}: unknown name", "use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda":
        _check_cuda(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps': torch finds no MPS device here", "use auto or cpu")
    return device


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None or torch.version.hip is not None
        reason = "torch finds no CUDA device here" if built else "this torch is built without CUDA"
        raise InputError(
            f"device {str(device)!r}: {reason}", "use auto or cpu, or install a torch with CUDA"
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise InputError(
            f"device {str(device)!r}: it does not exist", f"the last one is cuda:{last}"
        )


@cache
def runs_triton(device: torch.device) -> bool:
    """Return whether a device can run Triton's kernels."""
    return (
        device.type == "cuda"
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= _CAPABILITY
    )


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the compute dtype that a name stands for.

    "auto" is bfloat16 on a CUDA device that has it in hardware, float32 everywhere else. Raises
    InputError for any other name than float32, bfloat16 and float16. Warns of a dtype that the
    processor has no hardware for, as it is slower than float32 there.

    Examples
    --------
    >>> resolve_dtype("auto", torch.device("cpu"))
    torch.float32
    """
    if name == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise InputError(f"compute dtype {name!r}: unknown name", f"use auto, {', '.join(DTYPES)}")
    if device.type == "cpu" and name != "float32" and not processor_computes_in(name):
        _warn_once(
            f"compute dtype {name}: it is slower than float32 on this processor, which has no "
            "hardware for it (AMX, AVX-512); leave it out, or use float32"
        )
    return DTYPES[name]


@cache
def _warn_once(message: str) -> None:
    warn(message)


#: About the number of batches in a task of a store.
_BATCHES_AT_ONCE = 8


def batches_at_once(device: str) -> int:
    """Return the best number of batches to encode at once: on a CPU torch's threads, up to 8.

    Each batch has a thread of one core. Operations that are split among threads wait for the
    slowest thread at the end of each, above all if another program takes one of the cores.
    """
    return min(torch.get_num_threads(), _BATCHES_AT_ONCE) if device == "cpu" else 1


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name: "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")


def warn(message: str) -> None:
    """Log one line as a warning of ProtAlign."""
    _logger.warning(message)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that a device, or the host, has no memory left.

    CUDA has its own exception; MPS and torch's CPU allocator raise RuntimeError.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def halving_on_oom(
    encode: Callable[[Sequence[Item]], list[Output]],
    batch: Sequence[Item],
    report: Callable[[str], None] = warn,
) -> list[Output]:
    """Run ``encode(batch)``; if memory runs out, run its two halves, one after the other.

    Parameters
    ----------
    encode : callable
        Returns one output for each item of a batch.
    batch : sequence
    report : callable
        Is called with one line at every halving.

    Returns
    -------
    list
        One output per item, in order.

    Raises
    ------
    InputError
        If a single item is too large. Every other exception passes through.
    """
    failure = ""
    try:
        return encode(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failure = (str(error).splitlines() or ["out of memory"])[0]
    # Outside the except block the exception's frames are freed, with the tensors that they hold.
    _release_cached_memory()
    if len(batch) <= 1:
        raise InputError(
            f"one protein does not fit in the device's memory ({failure})",
            "use a device with more memory (--device cpu) or a smaller model, or leave it out",
        )
    middle = len(batch) // 2
    report(f"out of memory with {len(batch)} proteins at once: continuing with {middle}")
    return [
        *halving_on_oom(encode, batch[:middle], report),
        *halving_on_oom(encode, batch[middle:], report),
    ]


def _release_cached_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
