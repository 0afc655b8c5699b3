"""Where an encoder runs, in which precision, and what happens when memory runs out there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from protalign.core.errors import InputError

Item = TypeVar("Item")
Output = TypeVar("Output")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

#: What torch's threads and matrix multiplications take for themselves, as measured on a CPU.
WORKSPACE_BYTES = 24 * 2**20

_logger = logging.getLogger("protalign")


def resolve_device(name: str = "auto") -> torch.device:
    """The device that a name stands for; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises InputError for a name torch does not know and for a device this machine lacks.
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
        raise InputError(f"there is no device {name!r}", "use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda":
        _check_cuda(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("this machine has no MPS device that torch can use", "use auto or cpu")
    return device


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None or torch.version.hip is not None
        reason = "torch finds no CUDA device here" if built else "this torch is built without CUDA"
        raise InputError(reason, "use auto or cpu, or install a torch with CUDA")
    if device.index is not None and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise InputError(f"there is no device {str(device)!r}", f"the last one is cuda:{last}")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The compute dtype that a name stands for.

    "auto" is bfloat16 on a CUDA device that has it in hardware, float32 everywhere else. Raises
    InputError for any other name than float32, bfloat16 and float16.
    """
    if name == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    if name not in DTYPES:
        raise InputError(f"there is no compute dtype {name!r}", f"use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


#: About as many batches as a task of a store has.
_BATCHES_AT_ONCE = 8


def batches_at_once(device: str) -> int:
    """How many batches are best encoded at once: on a CPU one for each of torch's threads, up to 8.

    Each in a thread that computes alone: operations that are shared out among threads wait for the
    slowest at the end of each, above all where another program takes one of the cores.
    """
    return min(torch.get_num_threads(), _BATCHES_AT_ONCE) if device == "cpu" else 1


def dtype_name(dtype: torch.dtype) -> str:
    """ "float32" for torch.float32, and so on."""
    return str(dtype).removeprefix("torch.")


def warn(message: str) -> None:
    """Log one line as a warning of ProtAlign's."""
    _logger.warning(message)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device, or the host, has no memory left.

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
    """Run ``encode(batch)``; where memory runs out, run its two halves, one after the other.

    Returns one output per item, in order. ``report`` gets a line at every halving. Raises
    InputError where a single item is too large; every other exception passes through.
    """
    failure = ""
    try:
        return encode(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failure = (str(error).splitlines() or ["out of memory"])[0]
    # Out of the except block: the exception's frames, and the tensors they hold, are gone.
    _release_cached_memory()
    if len(batch) <= 1:
        raise InputError(
            f"one protein does not fit in the device's memory ({failure})",
            "use a device with more memory (--device cpu), a smaller model, or leave it out",
        )
    middle = len(batch) // 2
    report(f"out of memory with {len(batch)} proteins at once: going on with {middle}")
    return [
        *halving_on_oom(encode, batch[:middle], report),
        *halving_on_oom(encode, batch[middle:], report),
    ]


def _release_cached_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
