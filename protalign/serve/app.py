"""The routes of the server, and its description as OpenAPI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from protalign.core.errors import InputError, ProtAlignError
from protalign.core.printing import one_line, printable
from protalign.core.version import __version__
from protalign.serve import models
from protalign.serve.access import Gate, internal_error
from protalign.serve.answers import HIT_FORMS, JSON, chosen, json_response
from protalign.serve.batching import Compute
from protalign.serve.errors import ApiError, unusable
from protalign.serve.intake import Upload, read_request
from protalign.serve.library import API, Library, Shelf
from protalign.serve.metrics import Metrics
from protalign.serve.models import AlignForm, EmbeddingForm, MapForm, SearchForm
from protalign.serve.service import Service
from protalign.serve.settings import Settings

log = logging.getLogger("protalign.serve")

Result = TypeVar("Result")
#: Ends a start that failed.
Failed = Callable[[BaseException], None]

_EntryId = Annotated[str, Path(max_length=1000, description="The id of an entry.")]
_PAGES = ("protalign.serve/page", "protalign.search/view", "protalign.serve/docs")
_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_DESCRIPTION = """
Searches aligned vectors of protein sequences and structures.

Errors are `{"error": {"message": "<thing>: <problem>; <what to do>", "type", "code", "param"}}`.
"""


def make_app(
    open_library: Callable[[], Library],
    settings: Settings | None = None,
    *,
    threads: int | None = None,
    started: Callable[[Library], None] | None = None,
    failed: Failed | None = None,
) -> Gate:
    """Return the server as an ASGI application.

    Parameters
    ----------
    open_library : callable
        Opens what is served; called at the start, and for each reload.
    settings : Settings, optional
        Limits, key, origins.
    threads : int, optional
        Threads that compute; default: all cores.
    started : callable, optional
        Is called once the library is open.
    failed : callable, optional
        Is called with the error if it cannot be opened; default: the start fails.

    Returns
    -------
    Gate
        The application; ``gate.service`` does the work.
    """
    from protalign.core.machine import thread_count

    settings, metrics, shelf = settings or Settings(), Metrics(), Shelf(open_library)
    compute = Compute(threads or thread_count(), settings.window, settings.limits.waiting, metrics)
    service = Service(shelf, compute, settings, metrics)

    async def open_first() -> None:
        try:
            library = await service.reload()
        except BaseException as error:
            if failed is None:
                raise
            failed(error)
        else:
            if started is not None:
                started(library)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opening = asyncio.ensure_future(open_first())
        if failed is None:
            await opening
        yield
        opening.cancel()
        compute.close()

    app = FastAPI(
        title="ProtAlign",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["Retry-After"],
        )
    _add_errors(app)
    _add_routes(app, service)
    _add_pages(app)
    for route in app.routes:
        if isinstance(route, APIRoute):  # the docs page lists what each does, not its name again
            route.summary, route.description = route.description, ""
    gate = Gate(app, settings, metrics)
    gate.service = service
    return gate


def _add_errors(app: FastAPI) -> None:
    """Give every error its one form."""

    async def on_api(request: Request, error: Any) -> Response:
        return json_response(error.document(), error.status, error.headers)

    async def on_input(request: Request, error: Any) -> Response:
        return await on_api(request, ApiError.of(error))

    async def on_ours(request: Request, error: Any) -> Response:
        log.error("%s", printable(str(error)))
        return await on_api(request, unusable())

    async def on_fields(request: Request, error: Any) -> Response:
        first = error.errors()[0]
        name = one_line(str(first["loc"][-1]), 60)
        return await on_api(request, ApiError.of_field(name, first["msg"]))

    async def on_http(request: Request, error: Any) -> Response:
        path = one_line(request.url.path, 100)
        problems = {
            404: (f"{path}: no such route", "see /docs for the routes"),
            405: (f"{path}: it does not take {one_line(request.method, 20)}", "see /docs"),
        }
        reason, advice = problems.get(
            error.status_code, (f"the request: {one_line(error.detail, 200)}", "see /docs")
        )
        headers = dict(error.headers or {})
        return await on_api(request, ApiError(error.status_code, reason, advice, headers=headers))

    async def on_defect(request: Request, error: Any) -> Response:
        return await on_api(request, internal_error())

    handlers: dict[Any, Any] = {
        ApiError: on_api,
        InputError: on_input,
        ProtAlignError: on_ours,
        RequestValidationError: on_fields,
        HTTPException: on_http,
        Exception: on_defect,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route for its description."""
    meanings = {
        400: "malformed",
        401: "the key is missing or wrong",
        403: "a page of another origin",
        404: "unknown",
        405: "another method",
        406: "no form that is accepted",
        413: "too large",
        415: "another kind of body",
        422: "what is wrong with which record",
        429: "the queue is full",
        500: "a defect, or what is served cannot be read",
        503: "not ready, or shutting down",
        504: "the time limit",
    }
    every = {*statuses, 400, 401, 403, 405, 429, 500, 503, 504}
    # A reference, since a model would have the media type of the route's usual answer.
    content = {JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    return {
        status: {"content": content, "description": meanings[status]} for status in sorted(every)
    }


def _body(form: type[BaseModel], *, files: bool = True) -> dict[str, Any]:
    """Return the description of a route's body."""
    schema = form.model_json_schema(ref_template="#/components/schemas/{model}")
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if files:
        fields = dict(schema["properties"])
        fields["structures"] = {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "PDB, mmCIF or BinaryCIF files, each also .gz.",
        }
        content["multipart/form-data"] = {"schema": {**schema, "properties": fields}}
    return {"requestBody": {"required": True, "content": content}}


_BODY_ERRORS = (413, 415, 422)


def _add_routes(app: FastAPI, service: Service) -> None:
    limits = service.limits

    async def taken(
        request: Request, form: type[models.Form], *, files: bool = True
    ) -> tuple[models.Form, list[Upload]]:
        """Return a request's fields and files, within the time that it has."""
        try:
            async with asyncio.timeout(limits.seconds):
                return await read_request(request, form, limits, files=files)
        except TimeoutError:
            raise _too_slow(limits.seconds) from None

    async def answered(request: Request, work: Awaitable[Response]) -> Response:
        return await _while_there(request, work, limits.seconds)

    defect: dict[int | str, dict[str, Any]] = {
        500: {"model": models.ErrorAnswer, "description": "a defect"}
    }

    @app.get("/health", tags=["server"], response_model=models.Status, responses=defect)
    async def health() -> Response:
        """Say that the server is alive."""
        return json_response({"status": "ok"})

    @app.get("/ready", tags=["server"], response_model=models.Status, responses=_described())
    async def ready() -> Response:
        """Say that the library is open, with 200; 503 until then."""
        service.library  # noqa: B018  # raises until it is open
        return json_response({"status": "ready"})

    @app.get("/info", tags=["server"], response_model=models.Info, responses=_described())
    async def info() -> Response:
        """Return the version, what is served, and every limit."""
        return json_response(service.info())

    @app.get("/metrics", tags=["server"], responses=_described(), response_class=_Plain)
    async def metrics() -> Response:
        """Return counts and times for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    hit_forms: dict[str, Any] = {name: {} for name in HIT_FORMS if name != JSON}

    @app.post(
        f"/{API}/search",
        tags=["search"],
        response_model=models.SearchAnswer,
        responses={**_described(404, 406, *_BODY_ERRORS), 200: {"content": hit_forms}},
        openapi_extra=_body(SearchForm),
    )
    async def search(request: Request) -> Response:
        """Find the nearest entries, as `protalign search` does; Accept names the answer's form."""
        media_type = chosen(request.headers.get("accept"), list(HIT_FORMS))
        form, uploads = await taken(request, SearchForm)
        return await answered(request, service.search(form, uploads, media_type))

    @app.post(
        f"/{API}/align",
        tags=["search"],
        response_model=models.HitView,
        responses=_described(404, *_BODY_ERRORS),
        openapi_extra=_body(AlignForm),
    )
    async def align(request: Request) -> Response:
        """Align one query with one entry: residue pairs, scores, superposition, backbones."""
        form, uploads = await taken(request, AlignForm)
        return await answered(request, service.align(form, uploads))

    @app.post(
        f"/{API}/embeddings",
        tags=["embeddings"],
        response_model=models.EmbeddingAnswer,
        responses=_described(404, *_BODY_ERRORS),
        openapi_extra=_body(EmbeddingForm, files=False),
    )
    async def embeddings(request: Request) -> Response:
        """Return the vectors of sequences; OpenAI's request and answer."""
        form, _ = await taken(request, EmbeddingForm, files=False)
        return await answered(request, service.embeddings(form))

    @app.get(
        f"/{API}/models",
        tags=["embeddings"],
        response_model=models.ModelList,
        responses=_described(),
    )
    async def model_list() -> Response:
        """Return the one model of this server; OpenAI's answer."""
        name = service.library.name
        facts = {"id": name, "object": "model", "created": 0, "owned_by": "protalign"}
        return json_response({"object": "list", "data": [facts]})

    @app.get(
        f"/{API}/entries",
        tags=["entries"],
        response_model=models.EntryList,
        responses=_described(422),
    )
    async def entries(
        request: Request,
        contains: Annotated[str, Query(max_length=200, description="A part of the id.")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    ) -> Response:
        """Return ids that contain a text, those that begin with it first."""
        return await answered(request, service.entries(contains, limit))

    @app.get(
        f"/{API}/entries/{{id:path}}/structure",
        tags=["entries"],
        responses={
            **_described(404, 422),
            200: {"content": {"chemical/x-pdb": {}, "chemical/x-mmcif": {}}},
        },
        response_class=_Plain,
    )
    async def structure(
        request: Request,
        id: _EntryId,
        format: Annotated[
            Literal["pdb", "mmcif"] | None, Query(description="Default: PDB if it fits.")
        ] = None,
        on: Annotated[
            str | None, Query(max_length=1000, description="An entry to superpose it on.")
        ] = None,
    ) -> Response:
        """Return an entry's backbone out of the store, superposed on another entry if named."""
        return await answered(request, service.structure(id, format, on))

    @app.get(
        f"/{API}/entries/{{id:path}}",
        tags=["entries"],
        response_model=models.Entry,
        responses=_described(404, 422),
    )
    async def entry(request: Request, id: _EntryId) -> Response:
        """Return what the store knows of an entry."""
        return await answered(request, service.entry(id))

    @app.get(f"/{API}/map", tags=["map"], response_model=models.MapAnswer, responses=_described())
    async def map_points(request: Request) -> Response:
        """Return a sample of the vectors in two dimensions."""
        return await answered(request, service.map())

    @app.post(
        f"/{API}/map",
        tags=["map"],
        response_model=models.PlacedAnswer,
        responses=_described(404, *_BODY_ERRORS),
        openapi_extra=_body(MapForm),
    )
    async def map_places(request: Request) -> Response:
        """Return where queries and hits lie on the map."""
        form, uploads = await taken(request, MapForm)
        return await answered(request, service.map_of(form, uploads))

    @app.post(
        f"/{API}/reload", tags=["server"], response_model=models.Reloaded, responses=_described(422)
    )
    async def reload() -> Response:
        """Take up a store, vectors or a model that were written again; all at once or not."""
        if not service.settings.reloads:
            raise ApiError(
                401, "reload: this server has no key", "start it with --api-key-file, or use SIGHUP"
            )
        try:
            library = await service.reload()
        except InputError:
            raise
        except ProtAlignError as error:  # it is for who runs the server, and may name files
            reason, _, advice = one_line(error, 400).partition("; ")
            raise ApiError(422, reason, advice) from None
        return json_response(
            {
                "vectors": library.info["vectors"],
                "without_vectors": library.without_vectors,
                "without_entry": library.without_entry,
            }
        )


class _Plain(Response):
    media_type = "text/plain"


def _too_slow(seconds: float) -> ApiError:
    return ApiError(504, f"the request: it took more than {seconds:g} s", "send a smaller one")


async def _while_there(request: Request, work: Awaitable[Response], seconds: float) -> Response:
    """Return the answer, unless its time is over or its client has gone: then drop the work."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({doing, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if leaving.done():
            return Response(status_code=499)  # nobody reads it
        raise _too_slow(seconds)
    finally:
        doing.cancel()
        leaving.cancel()


@cache
def _static() -> dict[str, tuple[bytes, str]]:
    """Return name -> content and media type of every file that the pages use."""
    found = {}
    for place in _PAGES:
        package, _, folder = place.partition("/")
        root = files(package) / folder
        if not root.is_dir():
            continue
        for file in root.iterdir():
            kind = _MEDIA_TYPES.get(file.name.rsplit(".", 1)[-1])
            if kind and file.is_file():
                found[file.name] = file.read_bytes(), f"{kind}; charset=utf-8"
    return found


def _add_pages(app: FastAPI) -> None:
    def file(name: str) -> Response:
        if name not in _static():
            raise HTTPException(404)
        data, media_type = _static()[name]
        return Response(data, 200, {"Cache-Control": "no-cache"}, media_type)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return file("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return file("docs.html")

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        return file(name)
