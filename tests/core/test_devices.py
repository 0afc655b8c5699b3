"""Choosing a device and a dtype, and going on when memory runs out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protalign.core import devices
from protalign.core.devices import (
    dtype_name,
    halving_on_oom,
    is_out_of_memory,
    resolve_device,
    resolve_dtype,
)
from protalign.core.errors import InputError

CPU = torch.device("cpu")


def test_auto_is_the_fastest_device_there_is() -> None:
    """CUDA, else MPS, else the CPU."""
    expected = "cpu"
    if torch.backends.mps.is_available():
        expected = "mps"
    if torch.cuda.is_available():
        expected = "cuda"
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta", "xla", "cpu:one"])
def test_an_unknown_device_is_refused_with_the_names_that_work(name: str) -> None:
    """One line names what can be used."""
    with pytest.raises(InputError, match="use auto, cpu, cuda, cuda:1 or mps"):
        resolve_device(name)


def test_a_device_that_is_not_here_is_refused() -> None:
    """Asking for a device is never answered with another one in silence."""
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="CUDA"):
            resolve_device("cuda")
    else:
        with pytest.raises(InputError, match="the last one is cuda:"):
            resolve_device("cuda:99")
    if not torch.backends.mps.is_available():
        with pytest.raises(InputError, match="no MPS device"):
            resolve_device("mps")


def test_auto_dtype_is_float32_on_a_cpu() -> None:
    """Half precision is chosen only where the hardware computes in it."""
    assert resolve_dtype("auto", CPU) is torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_dtype_is_found_by_its_name(name: str) -> None:
    """Name and dtype go both ways."""
    assert dtype_name(resolve_dtype(name, CPU)) == name


@pytest.mark.parametrize("native", [True, False])
def test_a_dtype_that_is_slower_here_is_warned_of(
    native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for a process; not on a processor with hardware for it, and never of float32."""
    monkeypatch.setattr(devices, "processor_computes_in", lambda dtype: native)
    devices._warn_once.cache_clear()
    for name in ("float32", "auto", "bfloat16", "bfloat16"):
        resolve_dtype(name, CPU)
    slower = "compute dtype bfloat16: it is slower than float32 on this processor"
    assert [record.message[: len(slower)] for record in caplog.records] == [slower] * (not native)


def test_an_unknown_dtype_is_refused() -> None:
    """fp64 would be a dtype that no encoder runs in."""
    with pytest.raises(InputError, match="use auto, float32, bfloat16, float16"):
        resolve_dtype("float64", CPU)


@given(items=st.lists(st.integers(), max_size=40), fits=st.integers(1, 40))
def test_halving_gives_every_output_in_order(items: list[int], fits: int) -> None:
    """Whatever batch size fits, the outputs are those of the whole batch; each halving is told."""
    lines: list[str] = []
    sizes: list[int] = []

    def encode(batch: list[int]) -> list[int]:
        if len(batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        sizes.append(len(batch))
        return [-item for item in batch]

    assert halving_on_oom(encode, items, lines.append) == [-item for item in items]
    assert len(lines) == len(sizes) - 1


def test_a_single_item_too_large_is_an_input_error() -> None:
    """It can go into the failures, with advice, and the rest goes on."""

    def encode(batch: list[int]) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nsecond line")

    with pytest.raises(InputError) as caught:
        halving_on_oom(encode, [1], lambda line: None)
    assert "a smaller model" in caught.value.advice
    assert "second line" not in str(caught.value)


def test_other_errors_pass_through() -> None:
    """Only memory is handled: a shape error is not tried again in halves."""
    calls = []

    def encode(batch: list[int]) -> list[int]:
        calls.append(batch)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        halving_on_oom(encode, [1, 2], lambda line: None)
    assert len(calls) == 1


def test_memory_running_out_on_this_machine_is_recognised() -> None:
    """Torch's own exception for an allocation that no CPU can hold counts; MPS's words do too."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62 // 8, dtype=torch.float32)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))
