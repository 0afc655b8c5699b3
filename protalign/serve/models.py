"""The forms of requests and answers: what the OpenAPI page shows, and what requests are held to."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from protalign.core.words import Against, AlignMode, Modality

#: A finite number.
Number = Annotated[float, Field(allow_inf_nan=False)]
#: The form of a request.
Form = TypeVar("Form", bound=BaseModel)
_Whole = Annotated[int, Field(ge=0, le=2**31)]


class _Form(BaseModel):
    """A record without other fields."""

    model_config = ConfigDict(extra="forbid")


class QueryForm(_Form):
    """The queries of a request."""

    fasta: str = Field(
        "", description="FASTA records, or one sequence.", examples=[">query\nMKTAYIAKQRQISFVKSHF"]
    )
    ids: list[str] = Field([], description="Ids of entries to search with.", max_length=1000)
    query_by: Modality = Field(
        "sequence", description="The vector of an id to search with, if it has both."
    )


class SearchForm(QueryForm):
    """A search; its parameters are those of ``protalign.search``."""

    k: Annotated[int, Field(ge=1, le=2**31)] = Field(5, description="Hits per query.")
    against: Against = Field(
        "other",
        description="The vectors that are searched; other: structures for a sequence, sequences "
        "for a structure.",
    )
    rerank: _Whole = Field(
        0, description="Compare this many nearest entries by residues, and give the best."
    )
    mode: AlignMode = Field(
        "local",
        description="The alignment that orders: local by the probability of a common fold, "
        "global by score.",
    )
    length_term: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.0,
        description="Mode global: nats that the score, which orders the hits, loses for each "
        "residue of different length. The column global_score does not.",
    )
    tm_score: bool = Field(
        False, description="Superpose each hit on its query. Refused if no query has coordinates."
    )
    max_evalue: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    min_prob: Annotated[float, Field(ge=0, le=1)] | None = None
    min_score: Number | None = None
    min_cov: Annotated[float, Field(ge=0, le=1)] | None = None
    min_tm: Annotated[float, Field(ge=0, le=1)] | None = None
    columns: str | list[str] | None = Field(
        None, description="Columns of the answer, as a list or with commas."
    )


class ChosenForm(QueryForm):
    """Queries of which one may be chosen."""

    query: str | None = Field(
        None, description="The id of one of the queries, if there are several."
    )


class AlignForm(ChosenForm):
    """One query, and the entry to align it with."""

    target: str = Field(description="Id of an entry.")
    mode: AlignMode = "local"


class MapForm(ChosenForm):
    """Queries and hits to be placed on the map."""

    hits: list[str] = Field([], description="Ids of entries.", max_length=10_000)
    against: Against = Field("other", description="The kind of the hits, as in a search.")


class EmbeddingForm(BaseModel):
    """OpenAI's request for embeddings."""

    model_config = ConfigDict(extra="ignore")

    input: str | list[str] = Field(description="One sequence, or several.")
    model: str | None = Field(None, description="The name of this server's model, or nothing.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="The vectors' length, or nothing.")
    user: str | None = None


class ErrorFacts(_Form):
    """An error."""

    message: str = Field(description="<thing>: <problem>; <what to do>")
    type: str
    code: str
    param: str | None


class ErrorAnswer(_Form):
    """The form of every error."""

    error: ErrorFacts


class Status(_Form):
    """Whether the server is alive, or ready."""

    status: Literal["ok", "ready"]


class InputFacts(_Form):
    """The part of a request that a query came from."""

    field: Literal["fasta", "ids", "structures"]
    index: int = Field(description="Which file, id or record of the field, from 0.")


class QueryFacts(_Form):
    """A query of a search."""

    id: str
    length: int | None
    modality: Modality
    hits: int
    input: InputFacts


class FailureFacts(_Form):
    """A query that could not be read."""

    id: str
    file: str
    reason: str
    advice: str


class HitRow(_Form):
    """A hit, with the columns that were asked for."""

    query: str = ""
    target: str = ""
    fident: float | None = None
    alnlen: int | None = None
    mismatch: int | None = None
    gapopen: int | None = None
    qstart: int | None = None
    qend: int | None = None
    tstart: int | None = None
    tend: int | None = None
    evalue: float | None = None
    bits: float | None = None
    rank: int = 0
    qlen: int | None = None
    tlen: int | None = None
    qcov: float | None = None
    tcov: float | None = None
    cosine: float = 0.0
    against: Modality = "structure"
    score: float | None = None
    local_score: float | None = None
    global_score: float | None = None
    mode: AlignMode | None = None
    backing: float | None = None
    prob: float | None = None
    alntmscore: float | None = None
    qtmscore: float | None = None
    ttmscore: float | None = None
    rmsd: float | None = None
    u: list[float] | None = None
    t: list[float] | None = None
    qaln: str | None = None
    taln: str | None = None
    qchains: list[str] | None = None
    tchains: list[str] | None = None
    tdesc: str | None = None
    torganism: str | None = None
    taxid: int | None = None
    tacc: str | None = None


class SearchAnswer(_Form):
    """The document of hits, docs/hits.schema.json."""

    schema_: Literal["protalign hits"] = Field(alias="schema")
    version: Literal[1]
    columns: list[str]
    queries: list[QueryFacts]
    hits: list[HitRow]
    failures: list[FailureFacts]


class ChainFacts(_Form):
    """A chain of a protein."""

    name: str
    letters: str
    numbers: list[int | None]
    codes: list[str]


class ProteinFacts(_Form):
    """A protein of a hit view."""

    id: str
    length: int | None
    modality: Modality
    description: str | None = None
    organism: str | None = None
    taxid: int | None = None
    accession: str | None = None
    chains: list[ChainFacts]


class SuperpositionFacts(_Form):
    """The motion that puts the target on the query."""

    rotation: list[float]
    translation: list[float]
    qtmscore: float
    ttmscore: float
    alntmscore: float
    rmsd: float
    fit: list[float | None]


class Structures(_Form):
    """Backbones of query and target as text; the target is not moved."""

    query: str | None
    target: str | None
    format: Literal["pdb", "mmcif"]


class HitView(_Form):
    """All that a page shows of one hit."""

    schema_: Literal["protalign hit"] = Field(alias="schema")
    version: Literal[1]
    query: ProteinFacts
    target: ProteinFacts
    hit: HitRow
    pairs: list[tuple[int, int, float]]
    superposition: SuperpositionFacts | None
    fit: list[float | None]
    structures: Structures


class Embedding(_Form):
    """The vector of one sequence: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(_Form):
    """Residues that were embedded."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(_Form):
    """OpenAI's answer with embeddings."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ModelFacts(_Form):
    """A model, in OpenAI's form."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_Form):
    """The models of the server: one."""

    object: Literal["list"]
    data: list[ModelFacts]


class EntryName(_Form):
    """An entry to pick."""

    id: str
    description: str | None = None


class EntryList(_Form):
    """Entries whose ids contain a text."""

    entries: list[EntryName]


class EntryChain(_Form):
    """A chain of an entry."""

    name: str
    sequence: str


class Entry(_Form):
    """What the store knows of an entry."""

    id: str
    length: int
    has_sequence: bool
    has_structure: bool
    chains: list[EntryChain]
    description: str | None = None
    organism: str | None = None
    taxid: int | None = None
    accession: str | None = None
    notes: list[str]


class MapPoint(_Form):
    """A vector on the map."""

    id: str
    modality: Modality
    x: float
    y: float


class MapAnswer(_Form):
    """A sample of the vectors in two dimensions."""

    points: list[MapPoint]


class PlacedAnswer(_Form):
    """Queries and hits on the map."""

    queries: list[MapPoint]
    hits: list[MapPoint]


class StoreFacts(_Form):
    """The store that is served."""

    name: str
    entries: int
    options: dict[str, Any]


class ServedModel(_Form):
    """The model that is served."""

    name: str
    sha256: str
    residue_stage: bool
    calibrated: bool
    line: str


class VectorFacts(_Form):
    """The vectors that are searched."""

    n: int
    sequences: int
    structures: int
    dim: int


class Info(_Form):
    """What is served, and its limits."""

    version: str
    api: str
    store: StoreFacts
    model: ServedModel
    encoders: dict[Modality, dict[str, Any]]
    vectors: VectorFacts
    limits: dict[str, float | None]
    auth: bool


class Reloaded(_Form):
    """The vectors after a reload, and what the store and they lack of each other."""

    vectors: VectorFacts
    without_vectors: int
    without_entry: int
