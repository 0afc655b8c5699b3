"""Training by several processes: equal to one, and ended together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from protalign.core.errors import InputError
from protalign.core.launch import Launch, launch
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads.distributed import Ranks, current, together
from protalign.heads.model import Model
from tests.helpers import rank_fits

ROOT = Path(__file__).parents[2]
EQUAL = (
    *("clip", "siglip", "validated", "three", "codebook", "mean"),
    *("streamed", "streamed codebook"),
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LOST = "another process of the training ended or cannot be reached"
#: Parameters after 4 epochs differ from one process's by this, at most: float32's rounding.
TOLERANCE = 1e-5


def started(count: int, *words: object) -> list[subprocess.CompletedProcess[str]]:
    """Run a module in processes that have the variables which torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **ENVIRONMENT,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(processes, outputs, strict=True)
    ]


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a module in two processes that torchrun starts."""
    run = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    return subprocess.run(
        [sys.executable, *run, *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        env=ENVIRONMENT,
    )


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a file, and the curves beside them."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get("curves", "{}"))


@given(st.integers(1, 9), st.integers(1, 40))
def test_parts_cover_a_batch_once(size: int, count: int) -> None:
    """Ranks have equal parts up to one, one after another; each has at least one pair."""
    parts = [Ranks(Launch(rank, size)).own(count) for rank in range(size)]
    lengths = [len(part) for part in parts]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1
    assert set(np.concatenate(parts)) == set(range(count))
    if count >= size:
        assert np.array_equal(np.concatenate(parts), np.arange(count))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x': not a number"),
        ({"RANK": "²", "WORLD_SIZE": "2"}, "not a number"),
        ({"RANK": "1", "WORLD_SIZE": "9" * 5000}, "not a number"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE='0': less than 1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK='2': there are 2 processes"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "LOCAL_RANK='1'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": ""}, "MASTER_PORT"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "65536"},
            "MASTER_PORT='65536': more than 65535",
        ),
    ],
)
def test_a_wrong_environment_is_one_line(variables: dict[str, str], message: str) -> None:
    """Variables that torchrun did not set so are named, with what to do."""
    with pytest.raises(InputError, match=message) as caught:
        launch(variables)
    assert "torchrun" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_one_process_is_as_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world of one starts no process group."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with together() as ranks:
        assert ranks.alone
        assert ranks.first
        assert current() is ranks
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_ranks_share_no_device(device: str) -> None:
    """A device that is named, or the only one of its kind, is refused for several processes."""
    assert Ranks().device(torch.device(device)) == torch.device(device)
    with pytest.raises(InputError, match="several processes cannot train on it"):
        Ranks(Launch(1, 2)).device(torch.device(device))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "names"), [(2, (*EQUAL, "drawn", "gradients", "differs")), (3, ("three", "clip"))]
)
def test_several_processes_are_one(tmp_path: Path, count: int, names: tuple[str, ...]) -> None:
    """Parameters, losses, and what validation decides; one of 3 ranks has none of a batch of 2.

    All ranks end with the same bits, and seeds that are drawn are rank 0's. Gradients of a head
    add up, and those that all ranks have of the loss do not. Ranks with different tasks say so.
    """
    done = started(count, "tests.helpers.rank_fits", tmp_path, *names)
    assert [each.returncode for each in done] == [0] * count, done
    for name in names:
        found = [contents(tmp_path / f"{name}.{rank}.safetensors") for rank in range(count)]
        for tensors, curves in found:
            assert all(torch.equal(tensors[key], value) for key, value in found[0][0].items())
            if name in EQUAL:
                _check_equal(rank_fits.fitted(name), tensors, curves)
    if "gradients" in names:
        gradients, _ = contents(tmp_path / "gradients.0.safetensors")
        assert gradients["head"].tolist() == [3, 3]  # 1 + 2
        assert gradients["loss"].item() == 5
        for each in done:
            assert "X or a parameter: the 2 processes do not have the same" in each.stdout


def _check_equal(
    expected: ProtAlignEstimator, found: dict[str, torch.Tensor], curves: dict[str, Any]
) -> None:
    for key, value in expected.model_.state_dict().items():
        torch.testing.assert_close(found[key], value, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(curves["loss"], expected.loss_curve_, rtol=TOLERANCE)
    assert curves["validation"] == expected.validation_curve_
    stage = expected.model_.residue_stage
    assert curves["stage"] == (None if stage is None else stage.facts()["calibration"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lines"),
    [("fails", (LOST, "rank 1: it fails; expect it")), ("killed", (LOST, ""))],
)
def test_an_error_ends_all_within_seconds(
    tmp_path: Path, name: str, lines: tuple[str, str]
) -> None:
    """Without torchrun's help: rank 1 fails while rank 0 is done, or is killed while it trains."""
    start = time.monotonic()
    done = started(2, "tests.helpers.rank_fits", tmp_path, name)
    assert time.monotonic() - start < 60
    for each, line in zip(done, lines, strict=True):
        assert each.returncode != 0
        assert line in each.stderr
    says = [each.stdout.splitlines() for each in done]
    assert says == ([["later"], ["first"]] if name == "fails" else [["first"], []])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_writes_one_model_and_says_it_once(finished: Path, tmp_path: Path) -> None:
    """``torchrun -m protalign fit``: one line, one folder; an error is one line of all ranks'."""
    store, out = finished / "store.zarr", tmp_path / "model"
    fit = ("protalign", "fit", store, "--out", out, "--max-epochs", "15", "--batch-size", "7")
    split = ("--split", finished / "split.csv")
    done = torchrun(*fit, *split)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained on 20 pairs") == 1
    record = Model.load(out).training_record
    assert record is not None
    assert record.n_validation_pairs == 10
    for words, line in (
        (split, "it exists; name another folder or add --overwrite"),
        (("--overwrite", "--ids", tmp_path / "none.txt"), "none.txt"),
    ):
        done = torchrun(*fit, *words)
        assert done.returncode != 0
        [ours] = [each for each in done.stderr.splitlines() if each.startswith("protalign: ")]
        assert line in ours
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
