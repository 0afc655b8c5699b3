"""Options of the commands that search, each declared once, and what becomes of the hits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from protalign.cli.console import (
    SOME_FAILED,
    print_failures,
    print_json,
    print_note,
    print_table,
)
from protalign.core.errors import InputError
from protalign.core.printing import table_cell
from protalign.core.words import AlignMode, Rerank, counted

if TYPE_CHECKING:
    from protalign.search.hit_list import Hits

#: The forms in which hits are printed.
Format = Literal["table", "tsv", "json"]


def number_or_all(least: int) -> Callable[[str], Rerank]:
    """Return a parser of ``--rerank``: a number of candidates, or "all"."""

    def parse(text: str) -> Rerank:
        if text == "all":
            return "all"
        if not str(text).isdecimal() or int(text) < least:
            raise typer.BadParameter(f"{text!r}: give all, or a whole number of at least {least}")
        return int(text)

    return parse


HitsPerQuery = Annotated[int, typer.Option("-k", min=1, metavar="<int>", help="Hits per query.")]
OrderMode = Annotated[
    AlignMode,
    typer.Option(
        "--mode",
        help="--rerank: order the hits by the best local alignment, with gaps (finds "
        "relatives; first hits back others that are like them), or by the best diagonal, of "
        "several chains one each (tells near-identical proteins apart).",
    ),
]
LengthTerm = Annotated[
    float,
    typer.Option(
        "--length-term",
        metavar="<float>",
        help="--mode global: subtract this many nats from the score for each residue by which "
        "the lengths differ; 2 is a good value. 0: do not.",
    ),
]
TmScore = Annotated[
    bool,
    typer.Option(
        "--tm-score",
        help="Superpose each hit on the query and print the TM-score, normalised by the "
        "query's length. Needs queries with coordinates.",
    ),
]
MaxEvalue = Annotated[
    float | None,
    typer.Option("--max-evalue", metavar="<float>", help="Give only hits of at most this E-value."),
]
MinProbability = Annotated[
    float | None,
    typer.Option(
        "--min-prob",
        metavar="<0 to 1>",
        help="Give only hits of at least this probability of a common fold.",
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option(
        "--min-score",
        metavar="<float>",
        help="Give only hits of at least this score of their residues, in nats.",
    ),
]
MinCoverage = Annotated[
    float | None,
    typer.Option(
        "--min-cov",
        metavar="<0 to 1>",
        help="Give only hits whose alignment covers at least this share of the query and of the "
        "hit.",
    ),
]
MinTm = Annotated[
    float | None,
    typer.Option(
        "--min-tm",
        metavar="<0 to 1>",
        help="Give only hits of at least this TM-score, normalised by the query's length.",
    ),
]
OutFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        "-o",
        metavar="<path>",
        help="Write the hits to this file: .m8, .tsv, .csv, .json, .parquet or .html, or one of "
        "these and .gz. May be given several times. Default: print a table.",
        show_default=False,
    ),
]
HtmlFile = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="<path>",
        help="Write the hits to this .html file as well: one page that shows them in a table, in "
        "3D and aligned. The same as --out with that file.",
        show_default=False,
    ),
]
FormatOutput = Annotated[
    str | None,
    typer.Option(
        "--format-output",
        metavar="<names>",
        help="--out: the columns, as MMseqs2 and Foldseek name them, with commas; docs/formats.md "
        "lists them. Default of .m8: query,target,fident,alnlen,mismatch,gapopen,qstart,qend,"
        "tstart,tend,evalue,bits.",
        show_default=False,
    ),
]
Header = Annotated[
    bool, typer.Option("--header", help="--out: begin an .m8 file with the columns' names.")
]
SuperposeFolder = Annotated[
    Path | None,
    typer.Option(
        "--superpose",
        help="Write the structure of each hit, placed on its query, to this folder, with scripts "
        "that open them in PyMOL, ChimeraX and Mol*.",
        show_default=False,
    ),
]
PrintFormat = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="How to print the hits. Default: table, or nothing with --out.",
        show_default=False,
    ),
]

#: A hit's columns on the screen; those of the residues and tm_score are added if asked for.
_COLUMNS = ("query", "rank", "id", "cosine", "length", "against")
#: How the columns' numbers are printed; others are printed as they are.
_FORMS = {
    "cosine": ".4f",
    "tm_score": ".3f",
    "local_score": ".1f",
    "evalue": ".2g",
    "backing": ".1f",
    "probability": ".3f",
    "global_score": ".1f",
    "score": ".1f",
}


@dataclass(frozen=True)
class HitOutput:
    """Where the hits of a command go.

    Attributes
    ----------
    files : list of Path or None
        The files of ``--out``.
    columns : str or None
        The columns of ``--format-output``.
    header : bool
        Whether ``--header`` is given.
    superpose : Path or None
        The folder of ``--superpose``.
    form : "table", "tsv", "json" or None
        How to print the hits; None: a table, or nothing if there are files.
    quiet : bool
        Whether nothing is said of the files.
    """

    files: list[Path] | None
    columns: str | None
    header: bool
    superpose: Path | None
    form: Format | None
    quiet: bool = False

    def check(self, inputs: Iterable[object]) -> dict[str, Any]:
        """Refuse what cannot be written, before the search begins.

        Returns
        -------
        dict
            The arguments of the search that say what will be written.
        """
        from protalign.search.alignment_formats import M8_COLUMNS
        from protalign.search.hit_columns import parse_columns
        from protalign.search.hit_files import check_files, form_of
        from protalign.search.placed_hits import check_placed_folder

        files = self.files or []
        check_files(files, inputs)
        forms = set(map(form_of, files))
        if self.columns is not None and not files:
            raise InputError("--format-output: has no effect without --out", "give both or neither")
        if self.header and "m8" not in forms:
            raise InputError("--header: has no effect without an .m8 file", "leave it out")
        if self.superpose is not None:
            check_placed_folder(self.superpose)
            folder = self.superpose.resolve()
            for file in files:
                if folder in file.resolve().parents:
                    raise InputError(
                        f"{file}: --superpose replaces its folder", "name another place for one"
                    )
        columns = parse_columns(self.columns) or (M8_COLUMNS if "m8" in forms else ())
        return {"columns": columns or None, "superpose": self.superpose is not None}

    def finish(self, hits: Hits, *, tm_score: bool) -> None:
        """Write and print the hits and the failures; end with exit code 3 if there are some."""
        from protalign.search.alignment_formats import M8_COLUMNS
        from protalign.search.hit_columns import parse_columns, usual_columns
        from protalign.search.hit_files import form_of, write_table
        from protalign.search.rerank import RESIDUE_COLUMNS

        assert hits.comparison is not None
        if self.files:
            given = parse_columns(self.columns)
            usual = usual_columns(hits.comparison, tm_score=hits.has_tm_scores)
            columns_of = {
                file: given or (M8_COLUMNS if form_of(file) == "m8" else usual)
                for file in self.files
            }
            every = dict.fromkeys(name for names in columns_of.values() for name in names)
            table = hits.table(every)  # once: each hit is aligned for it
            for file, names in columns_of.items():
                write_table(table.select(names), file, header=self.header, view=hits.view)
            queries = counted(len(hits.comparison.queries), "query", "queries")
            files = ", ".join(map(str, self.files))
            if not self.quiet:
                print_note(f"{counted(len(hits), 'hit')} of {queries}: {files}")
        if self.form is not None or not self.files:
            columns = list(_COLUMNS)
            if hits.comparison.has_residues:
                columns[4:4] = RESIDUE_COLUMNS
                if hits.comparison.length_term:  # then no other column is what orders the hits
                    columns.insert(4 + len(RESIDUE_COLUMNS), "score")
            if tm_score:
                columns.append("tm_score")
            _print([hit.as_dict() for hit in hits], self.form or "table", columns)
        if self.superpose is not None:
            nothing = f"{self.superpose}: not written, since there are no hits"
            said = hits.superpose(self.superpose).sentence() if len(hits) else nothing
            if not self.quiet:
                print_note(said)
        print_failures(hits.failures)
        if hits.failures:
            raise typer.Exit(SOME_FAILED)


def with_page(files: list[Path] | None, html: Path | None) -> list[Path] | None:
    """Return the files of ``--out`` with that of ``--html``, whose suffix must be a page's."""
    if html is None:
        return files
    if not html.name.lower().endswith((".html", ".html.gz")):
        raise InputError(f"{html}: --html writes a page", "name it .html or .html.gz")
    return [*(files or []), html]


def chosen_format(output: Format | None, as_json: bool) -> Format | None:
    """Return how hits are printed; raise InputError if two options contradict each other."""
    if as_json and output not in (None, "json"):
        raise InputError(f"--format {output}: contradicts --json", "give one of the two")
    return "json" if as_json else output


def _print(hits: list[dict[str, Any]], output: Format, columns: list[str]) -> None:
    if output == "json":
        print_json({"hits": [{column: hit[column] for column in columns} for hit in hits]})
        return
    rows = [[_cell(column, hit[column]) for column in columns] for hit in hits]
    if output == "tsv":
        print("\t".join(columns))
        texts = {"query", "id", "against"}
        for row in rows:
            cells = zip(columns, row, strict=True)
            print("\t".join(table_cell(text) if name in texts else text for name, text in cells))
        return
    print_table(columns, rows)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    return format(value, _FORMS.get(column, ""))
