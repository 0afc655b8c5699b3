"""The project's shape: which part may import which, and what stays out of a bare import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import protalign

ROOT = Path(__file__).parent.parent

#: Layers from the bottom up; a part imports from layers below, nothing from its own.
LAYERS: list[set[str]] = [
    {"errors", "ragged", "protein", "threads", "blocks"},
    {"packed", "pooling_kernels"},
    {"fused_pooling"},
    {"batches"},
    {
        *{"reading", "stores", "encoders", "pooling", "losses", "metrics", "parameters"},
        *{"superposition", "kmers", "pdbbind", "delimited", "baselines", "bootstrap", "cca"},
        *{"writing"},
    },
    {"homology"},
    {"inputs", "splits", "ranking", "leakage"},
    {"mean_pooling", "early_stopping", "training_rows", "retrieval_tasks"},
    {"model", "evaluation_set"},
    {"training", "model_files", "exporting", "estimator_checks", "estimator_inputs"},
    {"model_encoders"},
    {"estimator", "lookup", "embedding"},
    {"search", "cropping", "attention_files"},
    {"evaluation"},
    {"report"},
    {"cli"},
]
#: Libraries that only these parts may import.
CONFINED = {
    "dask": {"stores/filling/dask.py"},
    "distributed": {"stores/filling/dask.py"},
    "gemmi": {"protalign/reading", "protalign/reading/structure_writer.py"},
    "biotite": {
        "protalign/reading",
        "protalign/report/alignment.py",
        "protalign/search/superposition.py",
    },
    "faiss": {"protalign/search/approximate.py"},
    "matplotlib": {"protalign/report/figures.py"},
    "plotly": {"protalign/report/page.py"},
    "jinja2": {"protalign/report/page.py"},
    "typer": {"cli"},
    "rich": {"cli"},
    "esm": {"protalign/encoders"},
    "triton": {"protalign/heads/kernels/fused_triton.py"},
    "pickle": {"protalign/encoders/weights.py"},  # names an exception to catch; unpickles nothing
}


def source_files() -> list[Path]:
    """Every module of the package, where the repository is at hand."""
    if not (ROOT / "protalign").is_dir():
        pytest.skip("the source folders are not here: this runs over an installed wheel")
    return [
        path for folder in ("protalign", "stores", "cli") for path in ROOT.glob(f"{folder}/**/*.py")
    ]


def part_of(path: Path) -> str:
    """The part a file belongs to: "stores", "reading", "estimator", …; "" for the package's own."""
    relative = path.relative_to(ROOT)
    if relative.parts[0] != "protalign":
        return relative.parts[0]
    return (
        ""
        if relative.name == "__init__.py" and len(relative.parts) == 2
        else (relative.parts[1] if len(relative.parts) > 2 else relative.stem)
    )


def imported_modules(path: Path) -> set[str]:
    """Modules that a file imports at run time, at its top or inside functions."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(part: str) -> int:
    """Index of a part's layer; fails for a part that no layer names."""
    for index, layer in enumerate(LAYERS):
        if part in layer:
            return index
    raise AssertionError(f"{part!r} is in no layer of tests/test_architecture.py")


def test_imports_run_one_way() -> None:
    """cli -> estimator, embedding -> encoders, reading, stores, pooling … -> domain types."""
    known = set().union(*LAYERS)
    wrong = []
    for path in source_files():
        part = part_of(path)
        if part == "":
            continue
        for module in imported_modules(path):
            pieces = module.split(".")
            if pieces[0] != "protalign" or len(pieces) < 2 or pieces[1] not in known:
                continue
            target = pieces[1]
            if target == part or layer_of(target) < layer_of(part):
                continue
            wrong.append(f"{path.relative_to(ROOT)} imports protalign.{target}")
    assert wrong == []


def test_stores_know_no_torch() -> None:
    """The store knows arrays, ids and hashes: a reader of stores needs no torch."""
    code = "import protalign.stores, sys; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize("library", CONFINED)
def test_libraries_stay_where_they_belong(library: str) -> None:
    """A library that one part is built on is imported there alone."""
    wrong = []
    for path in source_files():
        relative = path.relative_to(ROOT).as_posix()
        if any(relative.startswith(home) for home in CONFINED[library]):
            continue
        if any(module.split(".")[0] == library for module in imported_modules(path)):
            wrong.append(relative)
    assert wrong == []


def test_torch_in_stores_is_in_one_place() -> None:
    """Only what multiplies in bfloat16 imports it, when a search is long enough to need it."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in source_files()
        if part_of(path) == "stores"
        and any(module.split(".")[0] == "torch" for module in imported_modules(path))
    }
    assert found == {"protalign/search/kernels/bfloat16.py"}


def test_import_is_light() -> None:
    """``import protalign`` loads none of the heavy libraries."""
    heavy = "{'torch', 'dask', 'zarr', 'sklearn', 'pyarrow', 'gemmi', 'biotite', 'numpy'}"
    code = f"import protalign, sys; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_help_loads_no_heavy_library() -> None:
    """``protalign --help`` answers at once: it imports no torch, dask, zarr, numpy."""
    code = (
        "import sys\nsys.argv = ['protalign', '--help']\n"
        "from protalign.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'dask', 'zarr', 'sklearn', 'pyarrow', 'gemmi', 'biotite', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"
    assert "embed" in ran.stdout


def test_every_public_name_can_be_had() -> None:
    """Each name in ``__all__`` is there, and an unknown one is an AttributeError."""
    for name in protalign.__all__:
        assert getattr(protalign, name) is not None
    with pytest.raises(AttributeError, match="Estimater"):
        protalign.Estimater  # noqa: B018


def test_top_level_names_are_not_taken() -> None:
    """A user's own stores.py or cli.py is not shadowed: the package installs no such names."""
    from importlib.metadata import distribution

    names = (distribution("protalign").read_text("top_level.txt") or "").split()
    assert names == ["protalign"]
