"""How well a sequence fits each residue of a backbone: a table, and B-factors of a structure file.

Two questions are answered: which parts of the sequence this backbone supports, and where the
register slips (``protalign.residues.register``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from protalign.core.arrays import Float32, Int64
from protalign.core.errors import Failure, InputError
from protalign.core.files import make_folder, write_text
from protalign.core.paths import path_of, path_text
from protalign.core.printing import printable, share, table_cell
from protalign.core.words import counted
from protalign.heads.model import Model
from protalign.reading.structure_writer import ResidueKey, with_suffixes, write_values
from protalign.residues import ResidueStage
from protalign.residues.register import (
    VERDICTS,
    Register,
    Stretch,
    check_register,
    find_stretches,
)
from protalign.search.alignments import ProteinAlignment
from protalign.search.residue_rows import IncompleteResidue, ResidueRows, stored_rows
from protalign.stores import Entries

#: The verdict about a residue of the structure that no residue of the sequence is aligned with.
UNALIGNED = "unaligned"
#: The verdict about a residue without a complete backbone, which no encoder of structures reads.
INCOMPLETE = "incomplete"
#: The verdict about a residue on which the sequence has an X: it may be any amino acid. The window
#: around it counts its ratio all the same, since an encoder reads an X by its neighbours.
UNKNOWN, _ANY = "unknown", "X"
#: The columns of ``table``.
COLUMNS = (
    *("chain", "number", "icode", "letter"),
    *("sequence_chain", "sequence_number", "sequence_icode", "sequence_letter"),
    *("ratio", "support", "shift", "gain", "verdict"),
)
#: The suffix of a table's file.
TABLE_SUFFIX = ".fit.tsv"


@dataclass(frozen=True, eq=False)
class ResidueSupport:
    """The fit of a sequence to each residue of a structure.

    Attributes
    ----------
    sequence, structure : ResidueRows
        The two proteins.
    sequence_rows : (n,) int64
        The sequence's row on each row of the structure; -1 for none.
    ratios : (n,) float32
        Log-likelihood ratio of the two residues in nats; NaN for none.
    support : (n,) float32
        Mean ratio of the window around it; NaN for none.
    shift : (n,) int64
        The diagonal beside the chosen one that fits the window best, in residues; 0 for the chosen
        one.
    gain : (n,) float32
        Nats by which it is better over the window; NaN for none.
    verdicts : tuple of str
        "supported", "unclear", "unsupported", "shifted", "unknown" or "unaligned", of each row.
    stretches : tuple of Stretch
        Those that are shifted, in order; their unknown residues too.
    """

    sequence: ResidueRows
    structure: ResidueRows
    sequence_rows: Int64
    ratios: Float32
    support: Float32
    shift: Int64
    gain: Float32
    verdicts: tuple[str, ...]
    stretches: tuple[Stretch, ...]

    def counts(self) -> dict[str, int]:
        """Return the number of residues of each verdict that occurs; also of "incomplete"."""
        verdicts = (*self.verdicts, *[INCOMPLETE] * len(self.structure.incomplete))
        order = (*VERDICTS, UNKNOWN, UNALIGNED, INCOMPLETE)
        return {verdict: verdicts.count(verdict) for verdict in order if verdict in verdicts}

    def values(self) -> dict[ResidueKey, float]:
        """Return the ratio of each aligned residue of the structure, for B-factors."""
        return {
            (chain, number, code or " "): ratio
            for (chain, number, code), ratio in zip(
                self.structure.residues, self.ratios.tolist(), strict=True
            )
            if number is not None and not np.isnan(ratio)
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the counts of verdicts and the shifted stretches as JSON values."""
        return {
            "verdicts": self.counts(),
            "shifted": [
                {
                    "first": _residue(self.structure, stretch.first),
                    "last": _residue(self.structure, stretch.last),
                    "shift": stretch.shift,
                    "gain": round(stretch.gain, 2),
                    "followed": stretch.followed,
                }
                for stretch in self.stretches
            ],
        }


def support_of(model: Model, alignment: ProteinAlignment) -> ResidueSupport:
    """Return the support of each residue of the structure by the sequence aligned with it.

    Parameters
    ----------
    model : Model
        The model that they were aligned by.
    alignment : ProteinAlignment
        The chains that are ``matched`` count.

    Examples
    --------
    >>> from protalign.search.residue_support import COLUMNS
    >>> COLUMNS[:4]
    ('chain', 'number', 'icode', 'letter')
    """
    swapped = alignment.query.modality == "structure"
    sequence, structure = alignment.query, alignment.target
    if swapped:
        sequence, structure = structure, sequence
    pairs = []
    for matched in alignment.matched:
        rows = [matched.alignment.query_rows, matched.alignment.target_rows]
        begins = [
            _first_row(whole, part)
            for whole, part in zip(
                (alignment.query, alignment.target), (matched.query, matched.target), strict=True
            )
        ]
        both = [each + begin for each, begin in zip(rows, begins, strict=True)]
        pairs.append((both[1], both[0]) if swapped else (both[0], both[1]))
    return _supported(model.residue_scorer(), sequence, structure, pairs)


def own_support(model: Model, entries: Entries) -> Iterator[ResidueSupport | Failure]:
    """Yield the support of each entry's structure by its own sequence, or a failure.

    The residues are paired as the store's residue map pairs them; nothing is aligned.

    Parameters
    ----------
    model : Model
        A model with a residue stage.
    entries : EmbeddingStore or StoreView
        The entries. Those without a modality are failures.

    Raises
    ------
    ModelError
        The model has no residue stage, or the entries' embeddings are of another encoder.
    """
    stage = model.residue_scorer()
    store = entries.store
    for entry_id, row in zip(map(str, entries.ids), entries.entry_rows, strict=True):
        sequence, structure = (
            stored_rows(model, store, entry_id, modality) for modality in ("sequence", "structure")
        )
        if sequence is None or structure is None:
            missing = "sequence" if sequence is None else "structure"
            reason = f"the {missing} is missing or not embedded"
            yield Failure(entry_id, store.source(entry_id), reason, "leave it out")
            continue
        (index,) = store.sequence_rows(np.array([row]))
        rows = np.arange(len(structure))
        chains = [structure.chain_index == chain for chain in range(len(structure.chains))]
        pairs = [(index[kept], rows[kept]) for kept in chains]
        yield _supported(stage, sequence, structure, pairs)


def _supported(
    stage: ResidueStage,
    sequence: ResidueRows,
    structure: ResidueRows,
    pairs: Sequence[tuple[Int64, Int64]],
) -> ResidueSupport:
    """Check the register of each pair of chains, and put the results on the structure's rows."""
    n = len(structure)
    sequence_rows = np.full(n, -1, dtype=np.int64)
    shift = np.zeros(n, dtype=np.int64)
    ratios, support, gain = (np.full(n, np.nan, dtype=np.float32) for _ in range(3))
    verdicts = [UNALIGNED] * n
    stretches = []
    embedded = [
        stage.plain_rows(protein.modality, protein.embeddings) for protein in (sequence, structure)
    ]
    for q, t in pairs:
        if not len(q):
            continue
        chain = np.flatnonzero(structure.chain_index == structure.chain_index[t[0]])
        rows = embedded[0], embedded[1][chain[0] : chain[-1] + 1], q, t - chain[0]
        register: Register = check_register(*rows)
        sequence_rows[t] = q
        ratios[t], support[t] = register.ratios, register.support
        shift[t], gain[t] = register.shift, register.gain
        for row, of_sequence, verdict in zip(
            t.tolist(), q.tolist(), register.verdicts, strict=True
        ):
            verdicts[row] = UNKNOWN if sequence.letters[of_sequence] == _ANY else verdict
        stretches += [
            replace(each, first=each.first + int(chain[0]), last=each.last + int(chain[0]))
            for each in find_stretches(*rows, register)
        ]
    return ResidueSupport(
        sequence,
        structure,
        sequence_rows,
        ratios,
        support,
        shift,
        gain,
        tuple(verdicts),
        tuple(sorted(stretches, key=lambda stretch: stretch.first)),
    )


def table(support: ResidueSupport) -> str:
    """Return a TSV table with a line for each residue of the structure; see ``COLUMNS``.

    Residues without a complete backbone have a line without numbers.
    """
    lines = ["\t".join(COLUMNS)]
    incomplete = list(support.structure.incomplete)
    for row, verdict in enumerate(support.verdicts):
        while incomplete and incomplete[0].before <= row:
            lines.append(_incomplete_line(incomplete.pop(0)))
        q = int(support.sequence_rows[row])
        cells = _cells(support.structure, row) + (
            _cells(support.sequence, q) if q >= 0 else [""] * 4
        )
        if q >= 0:
            cells += [
                f"{support.ratios[row]:.3f}",
                f"{support.support[row]:.3f}",
                str(support.shift[row]),
                f"{support.gain[row]:.2f}",
            ]
        else:
            cells += [""] * 4
        lines.append("\t".join([*cells, verdict]))
    lines += map(_incomplete_line, incomplete)
    return "\n".join(lines) + "\n"


def sentences(support: ResidueSupport) -> list[str]:
    """Return what the support says in a few lines: shares of the verdicts, then shifted parts."""
    n = len(support.structure) + len(support.structure.incomplete)
    shares = ", ".join(f"{name} {share(count / n)}" for name, count in support.counts().items())
    lines = [printable(f"residues of {support.structure.name}: {shares}")]
    for stretch in support.stretches:
        ends = [printable(support.structure.label(row)) for row in (stretch.first, stretch.last)]
        where = "further on" if stretch.shift > 0 else "back"
        lines.append(
            f"register: the sequence on {ends[0]} to {ends[1]} fits "
            f"{counted(abs(stretch.shift), 'residue')} {where} "
            f"(gain {stretch.gain:.0f} nats)"
            + ("; a gap out and a gap back follow it" if stretch.followed else "")
        )
    return lines


def write_support(support: ResidueSupport, base: Path) -> tuple[list[Path], bool]:
    """Write the table and a structure file with the ratios as B-factors.

    Parameters
    ----------
    support : ResidueSupport
        The numbers. Residues that are not aligned get 0.
    base : Path
        The files without their suffixes.

    Returns
    -------
    (list of Path, bool)
        The files, and whether the structure file holds all atoms of its source, not only the
        backbone.
    """
    file = base.with_name(base.name + TABLE_SUFFIX)
    write_text(file, table(support))
    structure = support.structure
    if structure.structure is None:
        raise ValueError(f"{structure.id}: rows of a structure without its coordinates")
    path, all_atoms = write_values(
        path_of(structure.source),
        structure.source_sha256,
        structure.structure,
        support.values(),
        base,
    )
    return [file, path], all_atoms


@dataclass(frozen=True, eq=False)
class WrittenSupport:
    """The files of one entry.

    Attributes
    ----------
    support : ResidueSupport
        The numbers in them.
    files : tuple of Path
        The table and the structure.
    all_atoms : bool
        Whether the structure has all atoms of the source file, not only the backbone.
    """

    support: ResidueSupport
    files: tuple[Path, ...]
    all_atoms: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the id, the files and the fit as JSON values."""
        return {
            "id": self.support.structure.id,
            "path": path_text(self.files[1]),
            "table": str(self.files[0]),
            "all_atoms": self.all_atoms,
            **self.support.as_dict(),
        }


def write_own_support(
    model: Model, entries: Entries, folder: Path, *, overwrite: bool = False
) -> Iterator[WrittenSupport | Failure]:
    """Write the files of each entry's own sequence on its structure, named by id.

    Parameters
    ----------
    model : Model
        A model with a residue stage.
    entries : EmbeddingStore or StoreView
        The entries.
    folder : Path
        The folder of the files. It is made if it is missing.
    overwrite : bool
        Replace files that exist; without it they are failures. A source file of the store, or a
        file of this call, is never replaced.

    Yields
    ------
    WrittenSupport or Failure
        One for each entry.
    """
    make_folder(folder)
    never = set(map(str, entries.store.log.source_paths))
    for support in own_support(model, entries):
        if isinstance(support, Failure):
            yield support
            continue
        entry_id, source = support.structure.id, support.structure.source
        base = folder / entry_id.replace("/", "_")
        candidates = (base.with_name(base.name + TABLE_SUFFIX), *with_suffixes(base))
        existing = [path for path in candidates if path.exists()]
        if existing and not (
            overwrite and never.isdisjoint(path_text(path.resolve()) for path in existing)
        ):
            advice = "name another folder, or overwrite it unless it is a source"
            yield Failure(entry_id, str(existing[0]), "it exists", advice)
            continue
        try:
            files, all_atoms = write_support(support, base)
        except InputError as error:
            yield Failure(entry_id, source, error.reason, error.advice)
            continue
        never.update(path_text(path.resolve()) for path in files)
        yield WrittenSupport(support, tuple(files), all_atoms)


def _first_row(whole: ResidueRows, part: ResidueRows) -> int:
    """Return the row of a protein at which the rows of one of its chains begin."""
    return 0 if part.part is None else whole.first_row(part.part_index)


def _cells(rows: ResidueRows, row: int) -> list[str]:
    chain, number, code = rows.residues[row]
    return [
        table_cell(chain),
        "" if number is None else str(number),
        table_cell(code),
        rows.letters[row],
    ]


def _incomplete_line(residue: IncompleteResidue) -> str:
    cells = [
        table_cell(residue.chain),
        str(residue.number),
        table_cell(residue.insertion_code),
        residue.letter,
    ]
    return "\t".join([*cells, *[""] * (len(COLUMNS) - len(cells) - 1), INCOMPLETE])


def _residue(rows: ResidueRows, row: int) -> dict[str, Any]:
    chain, number, code = rows.residues[row]
    return {"chain": chain, "number": number, "insertion_code": code}
