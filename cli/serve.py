"""``protalign serve``: an HTTP server over a store, and its page."""

from __future__ import annotations

import logging
import signal
import webbrowser
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protalign.cli.console import ConsoleReporter, quick_imports
from protalign.cli.options import (
    AnyModel,
    Device,
    EntryPer,
    MinPlddt,
    Quiet,
    SequenceOf,
    SequenceWeights,
    StructureWeights,
    given_weights,
)
from protalign.core.errors import InputError
from protalign.core.words import counted

if TYPE_CHECKING:
    from protalign.serve.library import Library

#: What the extra brings.
_LIBRARIES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")


def serve(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="targets",
            help="What to search: a store that `protalign embed` made, or several, or a quoted "
            "pattern such as 'shards/*.zarr'; or FASTA and structure files, a folder of them, tar "
            "archives of structures, "
            "vectors, or a folder that `easy-search --db` made.",
            show_default=False,
        ),
    ],
    model: AnyModel = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            help="The store's vectors, which `protalign export` wrote with the model. Default: "
            "they are made now and kept in the cache.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to serve at. 0.0.0.0: all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="<int>", help="The port; 0: a free one.")
    ] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with a key of at least 16 characters, which every request must then have. "
            "Needed if other machines reach the server.",
            show_default=False,
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let other machines search without a key.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<text>",
            help="An origin, such as https://lab.example, whose pages may ask this server. May be "
            "given several times.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path,
        typer.Option(help="The folder that keeps stores and vectors of files."),
    ] = Path("protalign-cache"),
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="<int>",
            help="Threads that compute. Default: all cores.",
            show_default=False,
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0.1, metavar="<float>", help="Seconds that a request may take.")
    ] = 60.0,
    max_residues: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="<int>",
            help="Residues that a query may have. Default: as many as the memory allows, at most "
            "16384.",
            show_default=False,
        ),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
    per: EntryPer = "protein",
    sequence: SequenceOf = "observed",
    min_plddt: MinPlddt = None,
    sequence_weights: SequenceWeights = None,
    structure_weights: StructureWeights = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Serve searches over HTTP, with a page for the browser.

    It prints its address, and runs until Ctrl-C or SIGTERM, which finish the requests under way.
    SIGHUP takes up a store, vectors or a model that were written again. /docs describes the API.

    \b
    Examples:
      protalign serve structures/
      protalign serve store.zarr --model model/ --vectors vectors.parquet
      protalign serve structures/ --host 0.0.0.0 --api-key-file key.txt
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to take up again
    if not all(map(find_spec, _LIBRARIES)):
        raise InputError(
            "serve: FastAPI or a library beside it is not installed",
            'pip install "protalign[serve]"',
        )
    with quick_imports():
        from protalign.reading import ReadOptions
        from protalign.searching import ready_targets
        from protalign.serve.access import read_key
        from protalign.serve.library import Library
        from protalign.serve.run import check_exposure, log_to_stderr
        from protalign.serve.run import serve as run_server
        from protalign.serve.settings import LOOPBACK, Limits, Settings, is_loopback

    key = "" if api_key_file is None else read_key(api_key_file)
    # Without a key only this machine's own names are answered, so that no page of another site
    # reaches the server under its name.
    only_here = is_loopback(host) and not key
    settings = Settings(
        replace(Limits(), seconds=time_limit, residues=max_residues),
        key,
        tuple(origin or ()),
        LOOPBACK | {host.lower()} if only_here else frozenset(),
        reloads=bool(key) or only_here,  # not by anybody
    )
    check_exposure(host, settings, no_auth=no_auth)
    weights = given_weights(sequence_weights, structure_weights)
    reporter = ConsoleReporter(quiet=quiet)

    def open_library() -> Library:
        with reporter:
            ready = ready_targets(
                targets,
                vectors=vectors,
                model=model,
                cache=cache,
                options=ReadOptions(per, sequence, min_plddt),
                weights=weights,
                device=device,
                reporter=reporter,
            )
        searcher = ready.searcher(weights=weights, device=device)
        return Library(searcher, ready.name, ready.line, settings.limits.cache_bytes)

    def ready(address: str, library: Library) -> None:
        entries = counted(len(library), "entry", "entries")
        print(f"protalign serves {entries} at {address}", flush=True)
        if open_page:
            webbrowser.open(address)

    log_to_stderr(logging.ERROR if quiet else logging.INFO)
    run_server(open_library, settings, host, port, no_auth=no_auth, threads=threads, ready=ready)
