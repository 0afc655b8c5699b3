"""The project's shape: which part may import which, and what stays out of a bare import."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import protalign

ROOT = Path(__file__).parent.parent
TESTS = sorted((ROOT / "tests").glob("**/test_*.py"))

#: Room -> rooms that it may import, itself aside. A file of protalign/ that is in no folder is a
#: room of its own. Imports for type checkers count.
MAY_IMPORT = {
    "core": set(),
    "reading": {"core"},
    "stores": {"core"},
    "encoders": {"core"},
    "embedding": {"core", "reading", "encoders", "stores"},
    "residues": {"core"},
    "heads": {"core", "stores", "residues"},
    "splits": {"core", "stores"},
    "estimator": {"core", "reading", "stores", "heads"},
    "search": {"core", "reading", "encoders", "stores", "residues", "heads"},
    "searching": {
        *{"core", "reading", "encoders", "embedding", "stores", "heads", "estimator", "search"},
    },
    "serve": {"core", "reading", "encoders", "stores", "residues", "heads", "search"},
    "evaluation": {"core", "encoders", "stores", "residues", "heads", "splits", "search"},
    "report": {
        *{"core", "reading", "stores", "heads", "splits"},
        *{"estimator", "search", "evaluation"},
    },
    "cli": {
        *{"core", "reading", "encoders", "embedding", "stores", "residues", "heads", "splits"},
        *{"estimator", "search", "searching", "serve", "evaluation", "report"},
    },
    "__main__": {"cli"},
}
#: Libraries that only these files may import.
CONFINED = {
    "dask": {"stores/filling/dask.py"},
    "distributed": {"protalign/core/cluster.py", "stores/filling/cluster.py"},
    "gemmi": {"protalign/reading"},
    "biotite": {
        "protalign/evaluation/rivals.py",
        "protalign/reading",
        "protalign/report/alignment.py",
        "protalign/residues/alignment.py",
        "protalign/search/superposition.py",
    },
    "aiohttp": {"protalign/reading/fetching.py"},
    "foldcomp": {"protalign/reading/foldcomp.py"},
    "faiss": {"protalign/search/approximate.py"},
    "matplotlib": {"protalign/report/figures.py"},
    "jinja2": {"protalign/report/page.py", "protalign/search/hit_page.py"},
    "sklearn": {
        "protalign/estimator",
        "protalign/report/space.py",
        "protalign/residues/words.py",
    },
    "fastapi": {"protalign/serve"},
    "starlette": {"protalign/serve"},
    "pydantic": {"protalign/serve"},
    "uvicorn": {"protalign/serve"},
    "prometheus_client": {"protalign/serve"},
    "obstore": {"stores/objects/client.py"},
    "typer": {"cli"},
    "rich": {"cli"},
    "esm": {"protalign/encoders/esm2"},
    "triton": {
        "protalign/heads/kernels/fused_triton.py",
        "protalign/residues/kernels/diagonals_triton.py",
    },
    "numba": {
        "protalign/residues/kernels/loops.py",
        "protalign/residues/kernels/word_loops.py",
    },
    "llvmlite": {
        "protalign/residues/kernels/loops.py",
        "protalign/residues/kernels/word_loops.py",
    },
    "pickle": {"protalign/encoders/weights.py"},  # names an exception to catch; unpickles nothing
}


def source_files() -> list[Path]:
    """Every module of the package, if the repository is here."""
    if not (ROOT / "protalign").is_dir():
        pytest.skip("the source folders are not here: this runs over an installed wheel")
    return [
        path
        for folder in ("protalign", "stores", "cli")
        for path in sorted((ROOT / folder).glob("**/*.py"))
        if not any(parent.is_symlink() for parent in path.parents)
    ]


def room_of(path: Path) -> str:
    """The room of a file: "stores", "reading", …; "" for the package's own face."""
    parts = path.relative_to(ROOT).parts
    if parts[0] != "protalign":
        return parts[0]
    return parts[1].removesuffix(".py") if parts[1] != "__init__.py" else ""


@cache
def imported_modules(path: Path) -> set[str]:
    """Modules that a file imports: at its top, inside functions, or for type checkers."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative import"
            modules.add(node.module)
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def test_imports_run_one_way() -> None:
    """Each room imports the rooms of its row alone, and none of them leads back to it."""
    wrong = []
    for path in source_files():
        room = room_of(path)
        if room == "":
            continue
        assert room in MAY_IMPORT, f"{path}: {room!r} has no row"
        for module in imported_modules(path):
            pieces = module.split(".")
            if pieces[0] != "protalign" or len(pieces) < 2:
                continue
            target = pieces[1]
            if target in MAY_IMPORT and target != room and target not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports protalign.{target}")
    assert sorted(wrong) == []


def test_rows_have_no_circle() -> None:
    """A room's row names only rooms whose rows stand above it."""
    above: set[str] = set()
    for room, allowed in MAY_IMPORT.items():
        assert allowed <= above, room
        above.add(room)


def test_files_have_no_circle() -> None:
    """No file imports itself by way of others, also inside a room."""
    files = {module_of(path): path for path in source_files()}
    arrows = {
        module: {name for name in imported_modules(path) if name in files and name != module}
        for module, path in files.items()
    }
    # A package's face imports its files; what imports the package by name is not a circle of files.
    faces = {module for module, path in files.items() if path.name == "__init__.py"}
    arrows = {module: targets - faces for module, targets in arrows.items() if module not in faces}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module in done:
            return
        for target in arrows[module]:
            visit(target, (*trail, module))
        done.add(module)

    for module in arrows:
        visit(module, ())


def module_of(path: Path) -> str:
    """The dotted name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "protalign" else ("protalign", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_class_names_mean_one_thing() -> None:
    """No two public classes of the package have one name."""
    homes: dict[str, list[str]] = {}
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_tests_mirror_the_rooms() -> None:
    """Every folder of tests is a room's, or one of those that stand beside the package."""
    beside = {"helpers", "benchmarks", "scripts", "reliability"}
    folders = {path.parent.relative_to(ROOT / "tests").parts[:1] for path in TESTS}
    assert {parts[0] for parts in folders if parts} <= {*MAY_IMPORT, *beside}
    assert all((path.parent / "__init__.py").is_file() for path in TESTS)


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


def test_stores_import_no_torch() -> None:
    """The store knows arrays, ids and hashes, and so does nothing below it but two files."""
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in source_files()
        if room_of(path) in ("core", "stores", "reading", "splits")
        and any(module.split(".")[0] == "torch" for module in imported_modules(path))
    }
    assert importers == {"protalign/core/threads.py", "protalign/core/devices.py"}


def test_import_is_light() -> None:
    """``import protalign`` loads none of the heavy libraries."""
    heavy = "{'torch', 'dask', 'zarr', 'sklearn', 'pyarrow', 'gemmi', 'biotite', 'numba', 'numpy'}"
    code = f"import protalign, sys; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_help_loads_no_heavy_library() -> None:
    """``protalign --help`` answers at once: it imports no torch, dask, zarr, numpy."""
    code = (
        "import sys\nsys.argv = ['protalign', '--help']\n"
        "from protalign.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'dask', 'zarr', 'sklearn', 'pyarrow', 'gemmi', 'biotite', 'numba'}\n"
        "heavy |= {'numpy'}\n"
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
