"""Random damage of models and of Parquet files is found, and no reader differs silently."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protalign import read_vectors
from protalign.core.errors import ProtAlignError
from protalign.heads.model import Model
from protalign.heads.model_check import verify_model
from protalign.stores import verify_vectors
from tests.helpers.commands import run
from tests.reliability import times

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def two_of_each(
    tmp_path_factory: pytest.TempPathFactory, made: Path, store_path: Path
) -> tuple[list[Path], list[Path]]:
    """Two models, and vectors by each. Only to be copied."""
    folder = tmp_path_factory.mktemp("files")
    other = folder / "other"
    words = ["--seed", "5", "--max-epochs", "2", "--embed-dim", "16"]
    run("fit", store_path, "--out", other, *words)
    models = [made / "model", other]
    vectors = [folder / "0.parquet", folder / "1.parquet"]
    for model, file in zip(models, vectors, strict=True):
        run("export", store_path, "--model", model, "--out", file)
    return models, vectors


def meaning_of_model(path: Path) -> object:
    """All that a reader gets."""
    model = Model.load(path)
    state = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    stage = model.residue_stage and repr(model.residue_stage)
    return state, model.encoders, model.settings, stage


def meaning_of_vectors(path: Path) -> object:
    """All that a reader gets."""
    vectors = read_vectors(path)
    arrays = (vectors.sequence, vectors.structure, vectors.lengths)
    return vectors.ids.tolist(), [None if a is None else a.tobytes() for a in arrays]


class Damaged:
    """Damages copies; counts what was tried, and demands that it is found."""

    def __init__(
        self, path: Path, verify: Callable[[Path], list[str]], meaning: Callable[[Path], object]
    ) -> None:
        self.path, self._verify, self._meaning = path, verify, meaning
        self._expected = meaning(path)
        self.files = sorted(path.iterdir()) if path.is_dir() else [path]
        assert verify(path) == []

    def check(self, what: str, changes: dict[Path, bytes | None]) -> None:
        """Put contents in place of files (None deletes one), look, and put the old ones back."""
        before = {file: file.read_bytes() for file in changes}
        for file, data in changes.items():
            file.unlink() if data is None else file.write_bytes(data)
        problems = self._verify(self.path)
        assert problems, f"not found: {what}"
        assert all("\n" not in problem for problem in problems)
        try:
            assert self._meaning(self.path) == self._expected, f"silently different: {what}"
        except ProtAlignError as error:
            assert "\n" not in str(error)  # noqa: PT017
        for file, data in before.items():
            file.write_bytes(data)


@pytest.fixture(params=["model", "vectors"])
def damaged(
    request: pytest.FixtureRequest, two_of_each: tuple[list[Path], list[Path]], tmp_path: Path
) -> Iterator[Damaged]:
    """A copy of a model or of vectors."""
    (model, _), (vectors, _) = two_of_each
    if request.param == "model":
        copy = Path(shutil.copytree(model, tmp_path / "model"))
        yield Damaged(copy, verify_model, meaning_of_model)
    else:
        copy = Path(shutil.copy(vectors, tmp_path / "v.parquet"))
        yield Damaged(copy, verify_vectors, meaning_of_vectors)


def test_flips(damaged: Damaged, record_property: Record) -> None:
    """A flipped bit, in any file at all."""
    rng = random.Random(0)
    number = times(24, 200)
    for count in range(number):
        file = damaged.files[count % len(damaged.files)]
        data = bytearray(file.read_bytes())
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        damaged.check(f"{file.name}, byte {place}", {file: bytes(data)})
    record_property("flips", number)


def test_truncations_and_growth(damaged: Damaged, record_property: Record) -> None:
    """A file that is shorter, empty, or longer."""
    rng = random.Random(1)
    number = times(8, 50)
    for count in range(number):
        file = damaged.files[count % len(damaged.files)]
        data = file.read_bytes()
        length = rng.choice([0, rng.randrange(len(data)), len(data) + rng.randrange(1, 20)])
        damaged.check(f"{file.name}, {length} bytes", {file: (data + bytes(20))[:length]})
    record_property("truncations", number)


def test_deletions_and_files_of_others(
    damaged: Damaged, two_of_each: tuple[list[Path], list[Path]], record_property: Record
) -> None:
    """A file of a model that is gone, or that another model's has taken the place of."""
    if not damaged.path.is_dir():
        pytest.skip("vectors are one file")
    other = two_of_each[0][1]
    for file in damaged.files:
        damaged.check(f"{file.name} deleted", {file: None})
        if (data := (other / file.name).read_bytes()) != file.read_bytes():
            damaged.check(f"{file.name} of another", {file: data})
    for first in damaged.files:
        for second in damaged.files:
            if first < second:
                changes: dict[Path, bytes | None] = {
                    first: second.read_bytes(),
                    second: first.read_bytes(),
                }
                damaged.check(f"{first.name} and {second.name} exchanged", changes)
    count = len(damaged.files)
    record_property("deletions", count)
    record_property("swaps", count + count * (count - 1) // 2)
