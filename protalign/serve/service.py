"""What the routes do: queries to hits, alignments, vectors and places on the map."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from starlette.responses import Response

from protalign.core.errors import InputError
from protalign.core.protein import MODALITIES, OTHER, Backbone, Chain, Modality, Protein
from protalign.reading.fasta import parse_sequence
from protalign.reading.structure_writer import StructureText, backbone_text, fits_pdb
from protalign.search.comparison import HitFilters
from protalign.search.hit_columns import COLUMNS, parse_columns
from protalign.search.queries import Queries
from protalign.search.residue_rows import StoredProtein, stored_chains
from protalign.search.search_options import SearchOptions
from protalign.search.superposition import backbone_of, superimpose
from protalign.serve.answers import hits_response, json_response
from protalign.serve.batching import Compute
from protalign.serve.errors import ApiError
from protalign.serve.intake import Asked, Upload, read_queries, unknown_entry
from protalign.serve.library import Library, Shelf, described
from protalign.serve.metrics import Metrics
from protalign.serve.models import AlignForm, EmbeddingForm, MapForm, QueryForm, SearchForm
from protalign.serve.settings import Limits, Settings, residues_that_fit

log = logging.getLogger("protalign.serve")

Result = TypeVar("Result")


@dataclass(eq=False)
class Service:
    """The server's work, without its protocol.

    Attributes
    ----------
    shelf : Shelf
        The library in use.
    compute : Compute
        The threads.
    settings : Settings
        The limits.
    metrics : Metrics
        Counts and times.
    """

    shelf: Shelf
    compute: Compute
    settings: Settings
    metrics: Metrics
    _longest: WeakKeyDictionary[Library, dict[Modality, int]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )

    @property
    def limits(self) -> Limits:
        """The limits of a request."""
        return self.settings.limits

    @property
    def library(self) -> Library:
        """The library in use; raises ApiError until it is open."""
        library = self.shelf.current
        if library is None:
            raise ApiError(
                503,
                "the server: it is not ready yet",
                "try again when /ready answers 200",
                headers={"Retry-After": "2"},
            )
        return library

    def longest(self, library: Library) -> dict[Modality, int]:
        """Return the residues that a protein may have, by modality; settled at the first look."""
        longest = self._longest.get(library)
        if longest is not None:
            return longest
        longest = self._longest[library] = {}
        for modality in MODALITIES:
            limit = self.limits.residues
            if limit is None:
                encoder = library.searcher.encoders.load(modality)
                limit = residues_that_fit(encoder, self.compute.threads)
            longest[modality] = limit
        return longest

    def info(self) -> dict[str, Any]:
        """Return what is served, and the limits."""
        library = self.library
        longest = self.longest(library)
        limits = {
            **self.limits.as_dict(),
            "residues": longest["sequence"],
            "structure_residues": longest["structure"],
            "body_bytes": self.limits.body_bytes,
        }
        return {**library.info, "limits": limits, "auth": bool(self.settings.key)}

    async def search(
        self, form: SearchForm, uploads: Sequence[Upload], media_type: str
    ) -> Response:
        """Return the answer to a search."""
        library = self.library
        options = self._options(form, library)
        asked = await self._asked(form, uploads, library)
        queries = await self._queries(asked, form.query_by, library, residues=bool(options.rerank))
        searcher = library.searcher
        if options.rerank and options.against in queries.modality:
            candidates = None  # refused below, in the words of the search
        else:
            count = searcher.count(options)
            candidates = await self.compute.candidates(library, queries, options.against, count)

        def finish() -> Response:
            try:
                with self.metrics.stage("rank"):
                    hits = searcher.find(queries, options, candidates)
                with self.metrics.stage("answer"):
                    inputs = [asked.inputs[each] for each in queries.ids]
                    return hits_response(hits, media_type, inputs)
            except InputError as error:
                raise ApiError.of(error, _field(error)) from None

        return await self._run(finish, shared=True)

    def _options(self, form: SearchForm, library: Library) -> SearchOptions:
        for name, most in (("k", self.limits.hits), ("rerank", self.limits.rerank)):
            if getattr(form, name) > most:
                raise ApiError(
                    422, f"{name}={getattr(form, name)}: more than {most:,}", "ask for fewer", name
                )
        if form.rerank and not library.has_residues:
            raise ApiError(
                422,
                "rerank: the model of this server has no residue stage",
                "leave it out",
                "rerank",
            )
        try:
            columns = parse_columns(form.columns)
        except InputError as error:
            raise ApiError.of(error, "columns") from None
        try:
            options = SearchOptions(
                form.k,
                form.against,
                form.query_by,
                form.rerank,
                form.mode,
                form.length_term,
                form.tm_score,
                HitFilters(
                    form.max_evalue, form.min_prob, form.min_score, form.min_cov, form.min_tm
                ),
                columns,
            )
            options.check(by_words=False)
        except InputError as error:
            raise ApiError.of(error, _field(error)) from None
        return options

    async def align(self, form: AlignForm, uploads: Sequence[Upload]) -> Response:
        """Return the answer to an alignment: a hit view."""
        library = self.library
        if form.target not in library:
            raise unknown_entry(form.target)
        asked = await self._asked(form, uploads, library)
        if form.query is not None:
            asked = asked.only(form.query)
        if len(asked.inputs) != 1:
            raise ApiError(
                422,
                f"the request: it has {len(asked.inputs)} queries, and one is aligned",
                "send one, or name it as query",
                "query",
            )
        queries = await self._queries(asked, form.query_by, library, residues=library.has_residues)

        def work() -> Response:
            with self.metrics.stage("align"):
                hits = library.searcher.compare(queries, form.target, form.mode)
                return json_response(hits.view(0))

        return await self._run(work, shared=True)

    async def embeddings(self, form: EmbeddingForm) -> Response:
        """Return the vectors of sequences in OpenAI's form."""
        library = self.library
        if form.model not in (None, "", library.name):
            raise ApiError(
                404,
                f"the model {form.model[:60]!r}: this server does not have it",
                f"name {library.name}",
                "model",
            )
        dim = library.searcher.model.embed_dim
        if form.dimensions not in (None, dim):
            raise ApiError(
                422,
                f"dimensions={form.dimensions}: the vectors have {dim}",
                "leave it out",
                "dimensions",
            )
        texts = [form.input] if isinstance(form.input, str) else form.input
        proteins = self._sequences(texts, library)
        pooled = await self._pooled(library, proteins)

        def vector(query: Queries) -> list[float] | str:
            row = query.vectors[0].astype("<f4")
            return (
                b64encode(row.tobytes()).decode()
                if form.encoding_format == "base64"
                else row.tolist()
            )

        residues = sum(map(len, proteins))
        return json_response(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": vector(query)}
                    for index, query in enumerate(pooled)
                ],
                "model": library.name,
                "usage": {"prompt_tokens": residues, "total_tokens": residues},
            }
        )

    def _sequences(self, texts: Sequence[str], library: Library) -> list[Protein]:
        if not texts or len(texts) > self.limits.inputs:
            raise ApiError(
                422,
                f"input: {len(texts)} sequences, and 1 to {self.limits.inputs} are taken",
                "send so many at once",
                "input",
            )
        size = sum(map(len, texts))
        if size > self.limits.sequence_bytes:
            raise ApiError(
                413,
                f"input: it has {size:,} letters, more than {self.limits.sequence_bytes:,}",
                "send fewer sequences at once",
                "input",
            )
        longest, proteins = self.longest(library)["sequence"], []
        for number, text in enumerate(texts):
            try:
                chain = Chain.from_sequence(parse_sequence(text))
            except InputError as error:
                raise ApiError(
                    422, f"input {number}: {error.reason}", error.advice, f"input.{number}"
                ) from None
            if len(chain) > longest:
                raise ApiError(
                    422,
                    f"input {number}: it has {len(chain):,} residues, more than {longest:,}",
                    "send its domains",
                    f"input.{number}",
                )
            proteins.append(Protein(str(number), "", (chain,)))
        return proteins

    async def map_of(self, form: MapForm, uploads: Sequence[Upload]) -> Response:
        """Return the places of queries and hits on the map."""
        library = self.library
        for entry_id in form.hits:
            if entry_id not in library:
                raise unknown_entry(entry_id)
        asked = await self._asked(form, uploads, library)
        if form.query is not None:
            asked = asked.only(form.query)
        queries = await self._queries(asked, form.query_by, library, residues=False)

        def work() -> Response:
            kind = OTHER[queries.modality[0]] if form.against == "other" else form.against
            subset = library.searcher.vectors.select(form.hits)
            values, present = subset.candidates(kind)
            vectors = np.where(present[:, None], values, subset.candidates(OTHER[kind])[0])
            kinds = [kind if has else OTHER[kind] for has in present.tolist()]
            return json_response(
                {
                    "queries": _points(library, queries.ids, queries.modality, queries.vectors),
                    "hits": _points(library, form.hits, kinds, vectors),
                }
            )

        return await self._run(work)

    async def map(self) -> Response:
        """Return the map's sample."""
        library = self.library
        return await self._run(lambda: json_response({"points": library.points}))

    async def entries(self, contains: str, limit: int) -> Response:
        """Return ids that contain a text."""
        library = self.library

        def work() -> Response:
            ids = library.matching(contains, limit)
            about = described(library.store, ids)
            return json_response(
                {
                    "entries": [
                        {"id": each, "description": facts.get("description")}
                        for each, facts in zip(ids, about, strict=True)
                    ]
                }
            )

        return await self._run(work)

    async def entry(self, entry_id: str) -> Response:
        """Return what the store knows of an entry."""
        library = self._holding(entry_id)

        def work() -> Response:
            store = library.store
            view = store[[entry_id]]
            chains = stored_chains(store, entry_id)
            return json_response(
                {
                    "id": entry_id,
                    "length": sum(map(len, chains)),
                    "has_sequence": bool(view.has_sequence[0]),
                    "has_structure": bool(view.has_structure[0]),
                    "chains": [{"name": each.id, "sequence": each.sequence} for each in chains],
                    **described(store, [entry_id])[0],
                    "notes": list(store.notes(entry_id)),
                }
            )

        return await self._run(work)

    async def structure(
        self, entry_id: str, form: Literal["pdb", "mmcif"] | None, on: str | None
    ) -> Response:
        """Return an entry's backbone out of the store, moved onto another entry if one is named.

        An id may itself end in /structure: then its path is the entry's.
        """
        whole = f"{entry_id}/structure"
        if entry_id not in self.library and whole in self.library:
            return await self.entry(whole)
        library = self._holding(entry_id)
        if on is not None:
            self._holding(on)

        def work() -> Response:
            chains = _backbones(library, entry_id)
            if on is not None:
                chains = _moved(chains, _backbones(library, on), entry_id, on)
            kind: StructureText = form or ("pdb" if fits_pdb(chains) else "mmcif")
            if kind == "pdb" and not fits_pdb(chains):
                raise ApiError(
                    422,
                    f"{entry_id}: it does not fit into a PDB file",
                    "ask for format=mmcif",
                    "format",
                )
            text = backbone_text(chains, {}, kind, "backbone")
            media_type = "chemical/x-pdb" if kind == "pdb" else "chemical/x-mmcif"
            return Response(text.encode("utf-8", "backslashreplace"), 200, None, media_type)

        return await self._run(work)

    async def reload(self) -> Library:
        """Open the library again and use it from now on; an error leaves the old one in use."""
        loop = asyncio.get_running_loop()
        try:
            library = await loop.run_in_executor(None, self.shelf.reload)
        except Exception:
            self.metrics.reloads.labels("failed").inc()
            raise
        self.metrics.reloads.labels("done").inc()
        if library.gaps:
            log.warning("%s", library.gaps)
        return library

    def _holding(self, entry_id: str) -> Library:
        """Return the library if its store has an entry; raise ApiError otherwise."""
        library = self.library
        if entry_id not in library or entry_id not in library.store:
            raise unknown_entry(entry_id)
        return library

    async def _asked(self, form: QueryForm, uploads: Sequence[Upload], library: Library) -> Asked:
        longest = self.longest(library)

        def work() -> Asked:
            with self.metrics.stage("read"):
                return read_queries(form.fasta, form.ids, uploads, library, self.limits, longest)

        return await self._run(work)

    async def _queries(
        self, asked: Asked, query_by: Modality, library: Library, *, residues: bool
    ) -> Queries:
        """Return a request's queries: proteins first, then ids."""
        searcher = library.searcher
        parts = await self._pooled(library, asked.proteins)
        if asked.ids:
            stored = await self._run(
                lambda: searcher.stored(asked.ids, query_by, residues=residues)
            )
            if not residues:  # their coordinates may be wanted all the same
                stored = replace(
                    stored, proteins=[StoredProtein(library.store, each) for each in asked.ids]
                )
            parts.append(stored)
        queries = Queries.joined(parts, searcher.vectors.dim)
        queries.failures.extend(asked.failures)
        return queries

    async def _pooled(self, library: Library, proteins: Sequence[Protein]) -> list[Queries]:
        return await self.compute.pooled(library, proteins) if proteins else []

    async def _run(self, work: Callable[[], Result], *, shared: bool = False) -> Result:
        """Return what a function returns, called in the pool; a user's mistake is an ApiError."""
        try:
            return await self.compute.run(work, shared=shared)
        except InputError as error:
            raise ApiError.of(error) from None


def _field(error: InputError) -> str | None:
    """Return the field of a search that an error begins with; None if it begins with none.

    Columns that cannot be given are those of the field ``columns``.
    """
    things = error.reason.partition(": ")[0].split(", ")
    names = [thing.partition("=")[0] for thing in things]
    is_field = "=" in things[0] or names[0] not in COLUMNS  # "mode" is both
    fields = SearchForm.model_fields.keys()
    if not all(name in fields or name in COLUMNS for name in names):
        return None
    return names[0] if is_field else "columns"


def _points(
    library: Library, ids: Sequence[str], kinds: Sequence[Modality], vectors: Any
) -> list[dict[str, Any]]:
    return [
        {"id": each, "modality": kind, "x": x, "y": y}
        for each, kind, (x, y) in zip(ids, kinds, library.placed(vectors), strict=True)
    ]


def _backbones(library: Library, entry_id: str) -> tuple[Chain, ...]:
    chains = stored_chains(library.store, entry_id)
    if not any(len(chain.structure_rows) for chain in chains):
        raise ApiError(
            422, f"{entry_id}: it has no structure", "choose an entry with has_structure", entry_id
        )
    return chains


def _moved(
    chains: Sequence[Chain], on: Sequence[Chain], entry_id: str, other: str
) -> tuple[Chain, ...]:
    """Return chains where they lie on others."""
    found = superimpose(backbone_of(on), backbone_of(chains))
    if found is None or not np.isfinite(found.score):
        raise ApiError(
            422, f"{entry_id}: it cannot be superposed on {other}", "choose longer structures", "on"
        )
    return tuple(
        chain
        if chain.backbone is None
        else replace(
            chain, backbone=Backbone(found.moved(chain.backbone.coordinates).astype(np.float32))
        )
        for chain in chains
    )
