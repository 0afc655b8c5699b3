"""Requests into proteins: bodies of a bounded size, checked forms, and the readers of files.

Nothing that a client names is opened: its files are bytes in memory, and their names are text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from protalign.core.checks import did_you_mean
from protalign.core.errors import Failure, InputError
from protalign.core.printing import one_line
from protalign.core.protein import Modality, Protein
from protalign.core.untrusted import parse_json
from protalign.core.words import counted
from protalign.reading import ReadOptions, read_content, read_fasta_text
from protalign.reading.content import TooLargeError, unpack
from protalign.search.residue_rows import has_coordinates
from protalign.serve.errors import ApiError
from protalign.serve.library import Library
from protalign.serve.models import Form
from protalign.serve.settings import Limits

#: The name of a query that is a sequence without a header, and of pasted records in failures.
QUERY, PASTED = "query_1", "fasta"
#: Fields that may come several times, and the field of files.
_LISTS, _FILES = ("ids", "hits", "columns"), "structures"
_FIELDS = 12_000
_MOST_NAME = 200
_FORMS_TAKEN = "send JSON (application/json) or a form (multipart/form-data)"


@dataclass(frozen=True, eq=False)
class Upload:
    """A structure file of a request: its name is text, and nothing is opened by it."""

    name: str
    data: bytes


class _InMemory(MultiPartParser):
    """A parser that writes no file."""

    spool_max_size = 1 << 40


async def read_request(
    request: Request, form: type[Form], limits: Limits, *, files: bool = True
) -> tuple[Form, list[Upload]]:
    """Return a request's fields, checked, and its files.

    Raises
    ------
    ApiError
        400: not JSON, or not a form; 413: a part is too large; 415: another kind of body; 422: a
        field is wrong.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "the body: it is compressed", "send it as it is; .gz files may be sent")
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        data = await request.body()
        try:
            fields = parse_json(data, "the body", "send a JSON object")
        except InputError as error:
            raise ApiError(400, error.reason, error.advice) from None
        if not isinstance(fields, dict):
            raise ApiError(400, "the body: not a JSON object", "send one with named fields")
        return _checked(form, fields, strict=True), []
    if kind == "multipart/form-data" and files:
        fields, uploads = await _read_form(request, limits)
        return _checked(form, fields, strict=False), uploads
    raise ApiError(
        415,
        f"the body: {one_line(kind, 60) or 'no content type'} is not read here",
        _FORMS_TAKEN if files else "send JSON (application/json)",
    )


async def _read_form(request: Request, limits: Limits) -> tuple[dict[str, Any], list[Upload]]:
    parser = _InMemory(
        request.headers,
        request.stream(),
        max_files=limits.queries + 1,
        max_fields=_FIELDS,
        max_part_size=limits.sequence_bytes + 1,
    )
    try:
        parts = await parser.parse()
    except MultiPartException as error:
        if "maximum size" in error.message:
            raise ApiError(
                413,
                f"a field of the form: it has more than {limits.sequence_bytes:,} bytes",
                "send fewer sequences at once",
            ) from None
        if "Too many files" in error.message:
            raise _too_many(limits) from None
        raise ApiError(
            400, f"the form: {one_line(error.message, 100)}", "send multipart/form-data"
        ) from None
    except (KeyError, ValueError, AssertionError, LookupError):
        raise ApiError(400, "the form: it is damaged", "send multipart/form-data") from None
    fields: dict[str, Any] = {}
    uploads: list[Upload] = []
    try:
        for name, value in parts.multi_items():
            if isinstance(value, UploadFile):
                data = await value.read()
                if name == _FILES:
                    uploads.append(Upload(_name(value.filename), data))
                elif name == "fasta":  # a file of records
                    text = data.decode("utf-8-sig", "surrogateescape")
                    _add(fields, name, text.encode("utf-8", "backslashreplace").decode())
                else:
                    raise ApiError(
                        422,
                        f"{one_line(name, 60)}: a file is sent in this field",
                        f"send files as {_FILES}",
                        one_line(name, 60),
                    )
            else:
                _add(fields, name, value)
    finally:
        await parts.close()
    size = sum(len(upload.data) for upload in uploads)
    if size > limits.structure_bytes:
        raise ApiError(
            413,
            f"structures: they have {size:,} bytes, more than {limits.structure_bytes:,}",
            "send fewer or smaller files, or compress them (.gz)",
            _FILES,
        )
    return fields, uploads


def _add(fields: dict[str, Any], name: str, value: str) -> None:
    if name in _LISTS:
        fields.setdefault(name, []).append(value)
    elif name == "fasta" and name in fields:
        fields[name] = f"{fields[name]}\n{value}"
    elif name in fields:
        raise ApiError(
            422, f"{one_line(name, 60)}: the field comes twice", "send it once", one_line(name, 60)
        )
    elif value != "":  # an empty field of a form is one that is not filled in
        fields[name] = value


def _name(given: str | None) -> str:
    """Return a client's file name as text: no folders, nothing unprintable."""
    last = (given or "").replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(c if c.isprintable() and not c.isspace() else "_" for c in last)
    return clean.lstrip(".")[-_MOST_NAME:] or "structure"


def _checked(form: type[Form], fields: dict[str, Any], *, strict: bool) -> Form:
    if not strict and isinstance(fields.get("columns"), list):
        fields["columns"] = ",".join(fields["columns"])
    try:
        return form.model_validate(fields, strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = one_line(str(first["loc"][0]) if first["loc"] else "body", 60)
        if first["type"] == "extra_forbidden":
            advice = did_you_mean(name, form.model_fields) or (
                f"choose from {', '.join(form.model_fields)}"
            )
            raise ApiError(422, f"{name}: no such field", advice, name) from None
        if first["type"] == "missing":
            raise ApiError(422, f"{name}: the field is missing", "send it", name) from None
        raise ApiError.of_field(name, first["msg"]) from None


@dataclass(frozen=True, slots=True)
class Input:
    """The part of a request that a query came from.

    Attributes
    ----------
    field : str
        "fasta", "ids" or "structures".
    index : int
        Which record, id or file of the field, from 0.
    name : str
        The file's name, or that of the field.
    """

    field: str
    index: int
    name: str


@dataclass(frozen=True, eq=False)
class Asked:
    """The queries of a request: proteins to embed, then ids.

    Attributes
    ----------
    proteins : list of Protein
        Uploaded structures, then sequences.
    ids : list of str
        Ids of the library.
    failures : list of Failure
        Records that cannot be used.
    inputs : dict
        Id of a query -> the part of the request that it came from.
    """

    proteins: list[Protein]
    ids: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    inputs: dict[str, Input] = field(default_factory=dict)

    def only(self, query: str) -> Asked:
        """Return the same with one query; raise ApiError if it is none of them."""
        if query not in self.inputs:
            reason = next((each.reason for each in self.failures if each.id == query), None)
            if reason is not None:
                raise ApiError(422, f"{one_line(query, 60)}: {reason}", "choose another", "query")
            known = ", ".join(one_line(each, 60) for each in islice(self.inputs, 5))
            raise ApiError(
                422,
                f"{one_line(query, 60)}: not a query of this request",
                f"name one that it has, such as {known}",
                "query",
            )
        proteins = [each for each in self.proteins if each.id == query]
        ids = [each for each in self.ids if each == query]
        return Asked(proteins, ids, [], {query: self.inputs[query]})


def read_queries(
    fasta: str,
    ids: Sequence[str],
    uploads: Sequence[Upload],
    library: Library,
    limits: Limits,
    longest: dict[Modality, int],
) -> Asked:
    """Return the queries of a request.

    Parameters
    ----------
    fasta : str
        Records, or one sequence.
    ids : sequence of str
        Ids of the library's vectors.
    uploads : sequence of Upload
        Structure files.
    library : Library
        The library in use.
    limits : Limits
        How much is read.
    longest : dict
        Modality -> residues of a protein, at most.

    Raises
    ------
    ApiError
        404: an id is unknown; 413: too many bytes; 422: no query can be used, or there are too
        many.
    """
    size = len(fasta.encode("utf-8", "surrogatepass"))
    if size > limits.sequence_bytes:
        raise ApiError(
            413,
            f"fasta: it has {size:,} bytes, more than {limits.sequence_bytes:,}",
            "send fewer sequences at once",
            "fasta",
        )
    for entry_id in ids:
        if entry_id not in library:
            raise unknown_entry(entry_id)
    asked = Asked([], list(dict.fromkeys(ids)))
    for place, entry_id in enumerate(ids):
        asked.inputs.setdefault(entry_id, Input("ids", place, "ids"))
    room = limits.unpacked_bytes
    for place, upload in enumerate(uploads):
        taken = Input(_FILES, place, upload.name)
        room -= _take_file(asked, upload, library.searcher.reading, room, longest, taken)
        _check_count(asked, limits)
    text = fasta.strip()
    if text and not text.startswith((">", ";")):
        text = f">{QUERY}\n{text}"
    records = read_fasta_text(text + "\n", PASTED) if text else ()
    for place, record in enumerate(records):
        if isinstance(record, Failure):
            asked.failures.append(record)
        else:
            _take(asked, record, longest, Input("fasta", place, PASTED))
        _check_count(asked, limits)
    _check_count(asked, limits)
    if not asked.proteins and not asked.ids:
        if asked.failures:
            raise _failed(asked.failures)
        raise ApiError(
            422, "the request: it has no query", "give fasta, ids or structures", "fasta"
        )
    return asked


def _take_file(
    asked: Asked,
    upload: Upload,
    options: ReadOptions,
    room: int,
    longest: dict[Modality, int],
    taken: Input,
) -> int:
    """Take a file's proteins as queries; return its bytes, decompressed, of ``room`` at most."""
    try:
        content = unpack(upload.data, upload.name, room)
    except TooLargeError:
        raise ApiError(
            413,
            f"{upload.name}: with the files before it, it has more than {room:,} bytes once "
            "decompressed",
            "send fewer or smaller files",
            upload.name,
        ) from None
    except InputError as error:
        asked.failures.append(Failure("", upload.name, error.reason, error.advice))
        return 0
    plain = upload.name[:-3] if upload.name.lower().endswith(".gz") else upload.name
    result = read_content(plain, content, options, room)
    asked.failures.extend(replace(each, file=upload.name) for each in result.failures)
    for protein in result.proteins:
        _take(asked, protein, longest, taken)
    return len(content)


def _take(asked: Asked, protein: Protein, longest: dict[Modality, int], taken: Input) -> None:
    """Take a protein as a query, or make it a failure."""
    kind: Modality = "structure" if has_coordinates(protein) else "sequence"
    size = len(protein)
    if kind == "structure" and protein.structure is not None:
        size = protein.structure.context_length
    if size > longest[kind]:
        reason = f"it has {size:,} residues, more than {longest[kind]:,}"
        asked.failures.append(Failure(protein.id, taken.name, reason, "send its domains"))
    elif protein.id in asked.inputs:
        reason = f"the id {protein.id} is taken by a query of {asked.inputs[protein.id].name}"
        asked.failures.append(Failure(protein.id, taken.name, reason, "rename one of the two"))
    else:
        asked.inputs[protein.id] = taken
        asked.proteins.append(replace(protein, source=""))


def _check_count(asked: Asked, limits: Limits) -> None:
    if len(asked.proteins) + len(asked.ids) + len(asked.failures) > limits.queries:
        raise _too_many(limits)


def _too_many(limits: Limits) -> ApiError:
    return ApiError(
        422,
        f"the request: it has more than {counted(limits.queries, 'query', 'queries')}",
        "send several requests",
    )


def _failed(failures: Sequence[Failure]) -> ApiError:
    """Return the answer to a request of which no query can be used."""
    first, more = failures[0], len(failures) - 1
    thing = ", ".join(dict.fromkeys(filter(None, (first.file, first.id))))
    others = f" (and {more} more)" if more else ""
    return ApiError(
        422, f"{thing}: {first.reason}{others}", first.advice, first.id or first.file or None
    )


def unknown_entry(entry_id: str) -> ApiError:
    """Return the answer to a request for an entry that is not served."""
    return ApiError(
        404,
        f"{one_line(entry_id, 60)!r}: not an entry of this server",
        "choose one of /v1/entries",
        one_line(entry_id, 60),
    )
