"""Alignments of real proteins: names of residues, forms to write, and the fit of each residue."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import gemmi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protalign.core.arrays import Int64
from protalign.core.errors import Failure, InputError, ModelError
from protalign.core.printing import cell_text
from protalign.core.protein import SEQUENCE_LETTERS, Backbone, Chain
from protalign.core.words import AlignMode
from protalign.estimator.estimator import ProtAlignEstimator
from protalign.heads.losses import ContrastiveLoss
from protalign.heads.model import Model
from protalign.reading import ReadOptions, find_sources, read_sources
from protalign.residues import Alignment, alignment
from protalign.search.align_files import AlignResults, shown
from protalign.search.alignment_formats import BLOCK, M8_COLUMNS, a3m, as_dict, blocks, fasta, m8
from protalign.search.alignments import NamedAlignment, align_proteins
from protalign.search.residue_rows import ResidueRows, stored_chains, stored_rows
from protalign.search.residue_support import (
    COLUMNS,
    ResidueSupport,
    own_support,
    support_of,
    table,
    write_support,
)
from protalign.stores import EmbeddingStore
from tests.helpers.estimator_stores import PROTEINMPNN

LETTERS = "".join(sorted(SEQUENCE_LETTERS))


def pairs_of_rows(n: int, gaps: float, seed: int) -> tuple[int, int, Int64, Int64]:
    """Return the lengths of two proteins and n ascending rows of each that are aligned."""
    rng = np.random.default_rng(seed)
    lengths = np.where(rng.random((2, n)) < gaps, rng.integers(2, 6, (2, n)), 1)
    query, target = np.cumsum(lengths, axis=1) - 1
    ends = rng.integers(0, 9, 2)
    return int(query[-1] + 1 + ends[0]), int(target[-1] + 1 + ends[1]), query, target


#: Arguments of ``pairs_of_rows``.
DRAWN = {
    "n": st.integers(1, 80),
    "gaps": st.sampled_from([0.0, 0.1, 0.4]),
    "seed": st.integers(0, 10_000),
}


def named(
    lengths: tuple[int, int], query: Int64, target: Int64, seed: int = 0, chains: int = 1
) -> NamedAlignment:
    """Return an alignment of random letters; the query has chains A, B, … of nearly one length."""
    rng = np.random.default_rng(seed)
    letters = ["".join(rng.choice(list(LETTERS), length)) for length in lengths]
    cuts = np.linspace(0, lengths[0], chains + 1).astype(int)
    parts = [
        Chain.from_sequence(letters[0][first:last], "ABCDEFGH"[place])
        for place, (first, last) in enumerate(pairwise(cuts))
        if last > first
    ]
    ratios = rng.normal(2, 3, len(query)).astype(np.float32)
    found = Alignment("local", 12.5, query, target, ratios, *lengths, evalue=0.02)
    return NamedAlignment(
        ResidueRows.of("=q 1", "sequence", parts, np.zeros((lengths[0], 1), np.float32)),
        ResidueRows.of(
            "t\x1b",
            "structure",
            [_with_backbone(letters[1])],
            np.zeros((lengths[1], 1), np.float32),
        ),
        found,
    )


def _with_backbone(letters: str) -> Chain:
    chain = Chain.from_sequence(letters, "T")
    coordinates = np.zeros((len(letters), 4, 3), np.float32)
    return Chain(
        "T",
        letters,
        chain.residue_numbers - 5,  # negative numbers too
        chain.insertion_codes,
        chain.observed,
        Backbone(coordinates),
    )


@given(**DRAWN)
def test_m8_a3m_and_fasta_are_read_back(n: int, gaps: float, seed: int) -> None:
    """Each gives the aligned rows again, whatever the alignment."""
    *lengths, query, target = pairs_of_rows(n, gaps, seed)
    alignment = named((lengths[0], lengths[1]), query, target, seed)
    letters = alignment.query.letters, alignment.target.letters

    cells = dict(zip(M8_COLUMNS, m8(alignment).split("\t"), strict=True))
    assert cell_text(cells["query"]) == "=q 1"
    assert cells["target"] == "t\\x1b"
    ends = [int(cells[name]) - 1 for name in ("qstart", "qend", "tstart", "tend")]
    assert ends == [query[0], query[-1], target[0], target[-1]]
    assert int(cells["alnlen"]) - int(cells["mismatch"]) == alignment.identical + (
        int(cells["alnlen"]) - len(query)
    )
    assert float(cells["bits"]) == pytest.approx(12.5 / np.log(2), abs=0.05)
    assert float(cells["evalue"]) == 0.02

    names, records = records_of(fasta(alignment))
    assert names == [
        f"=q_1/{query[0] + 1}-{query[-1] + 1}",
        f"t\\x1b/{target[0] + 1}-{target[-1] + 1}",
    ]
    assert len(records[0]) == len(records[1]) == int(cells["alnlen"])
    assert rows_of_fasta(records, int(query[0]), int(target[0])) == (
        query.tolist(),
        target.tolist(),
    )
    assert [record.replace("-", "") for record in records] == [
        text[rows[0] : rows[-1] + 1] for text, rows in zip(letters, (query, target), strict=True)
    ]

    names, records = records_of(a3m(alignment))
    assert records[0] == letters[0]
    assert sum(not letter.islower() for letter in records[1]) == lengths[0]
    assert rows_of_a3m(records[1], int(names[1].rsplit("/")[-1].split("-")[0]) - 1) == (
        query.tolist(),
        target.tolist(),
    )


def records_of(text: str) -> tuple[list[str], list[str]]:
    """The names and the sequences of a FASTA text."""
    lines = text.splitlines()
    assert all(line.startswith(">") for line in lines[::2])
    return [line[1:] for line in lines[::2]], lines[1::2]


def rows_of_fasta(records: list[str], q: int, t: int) -> tuple[list[int], list[int]]:
    """The aligned rows of two records that begin at rows q and t."""
    pairs = []
    for a, b in zip(*records, strict=True):
        if a != "-" and b != "-":
            pairs.append((q, t))
        q, t = q + (a != "-"), t + (b != "-")
    return [q for q, _ in pairs], [t for _, t in pairs]


def rows_of_a3m(record: str, t: int) -> tuple[list[int], list[int]]:
    """The aligned rows of a record on a query that begins at row 0."""
    pairs, q = [], 0
    for letter in record:
        if letter.isupper():
            pairs.append((q, t))
        q, t = q + (not letter.islower()), t + (letter != "-")
    return [q for q, _ in pairs], [t for _, t in pairs]


@given(**DRAWN, chains=st.integers(1, 3))
def test_blocks_show_every_column(n: int, gaps: float, seed: int, chains: int) -> None:
    """Letters joined over the blocks are the FASTA records; a block is of one chain of each."""
    *lengths, query, target = pairs_of_rows(n, gaps, seed)
    alignment = named((lengths[0], lengths[1]), query, target, seed, chains)
    lines = blocks(alignment).split("\n")
    assert "12.5 nats (18.0 bits), E-value 0.02" in lines[1]
    body = lines[4:]
    starts = range(0, len(body) - 3, 4)
    joined = ["", ""]
    for start in starts:
        for side, line in enumerate((body[start], body[start + 2])):
            assert "\x1b" not in line
            words = line.split("  ")
            name, first, letters, last = [word.strip() for word in words if word.strip()]
            assert name == ("=q 1", "t\\x1b")[side]
            joined[side] += letters
            assert 1 <= len(letters) <= BLOCK
            if set(letters) == {"-"}:
                assert first == last == "-"
                continue
            assert first.split(":")[0] == last.split(":")[0]
        marks = body[start + 1]
        assert set(marks) <= set(" |:.")
    assert joined == records_of(fasta(alignment))[1]
    first_line = body[0].split()
    label = alignment.query.label(int(query[0]))
    assert first_line[2] == label
    assert body[-2].split()[-1] == alignment.target.label(int(target[-1]))


def test_nothing_aligned_is_no_record() -> None:
    """An empty alignment has no line of m8, no records, a sentence, and JSON without rows."""
    none = np.empty(0, dtype=np.int64)
    alignment = named((5, 5), none, none)
    assert m8(alignment) == a3m(alignment) == fasta(alignment) == ""
    assert "no part of the two fits" in blocks(alignment)
    assert as_dict(alignment)["query_residues"]["rows"] == []
    json.dumps(as_dict(alignment), allow_nan=False)


def residues_of(path: Path) -> list[tuple[str, str, int, str, bool]]:
    """(chain, letter, number, code, backbone is complete) of a file's amino acids, by gemmi."""
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    found = []
    for chain in structure[0]:
        for residue in chain.get_polymer():
            info = gemmi.find_tabulated_residue(residue.name)
            names = {atom.name for atom in residue}
            letter = info.one_letter_code.upper() if info.is_amino_acid() else "X"
            number = residue.seqid.num
            assert number is not None
            complete = {"N", "CA", "C", "O"} <= names
            found.append((chain.name, letter, number, residue.seqid.icode.strip(), complete))
    return found


def test_rows_have_the_names_of_the_file(sample: Path, store: EmbeddingStore) -> None:
    """Chain, number, code and letter of each row are those that another reader finds."""
    for path in sorted(sample.glob("*_*.*"))[:12]:
        entry_id = path.name.split(".")[0]
        expected = residues_of(path)
        chains = stored_chains(store, entry_id)
        sources, _ = find_sources([path])
        (result,) = read_sources(sources, ReadOptions(), processes=1)
        (protein,) = result.proteins
        for each in (chains, protein.chains):
            n = sum(len(chain) for chain in each)
            rows = ResidueRows.of(entry_id, "sequence", each, np.zeros((n, 1), np.float32))
            assert [(c, x, *r) for (c, *r), x in zip(rows.residues, rows.letters, strict=True)] == [
                tuple(residue[:4]) for residue in expected
            ]
            kept = [residue[:4] for residue in expected if residue[4]]
            rows = ResidueRows.of(entry_id, "structure", each, np.zeros((len(kept), 1), np.float32))
            assert [(c, x, *r) for (c, *r), x in zip(rows.residues, rows.letters, strict=True)] == [
                tuple(residue) for residue in kept
            ]


def test_a_row_without_a_backbone_is_left_out() -> None:
    """A structure has rows of complete residues only; codes and residues not seen are named."""
    coordinates = np.zeros((4, 4, 3), np.float32)
    coordinates[1, 3] = coordinates[3] = np.nan
    chain = Chain(
        "AA",
        "MKVL",
        np.array([5, 6, 6, 0], np.int32),
        np.frombuffer(b"  A ", np.uint8),
        np.array([True, True, True, False]),
        Backbone(coordinates),
    )
    structure = ResidueRows.of("x", "structure", [chain], np.zeros((2, 1), np.float32))
    assert structure.letters == "MV"
    assert [structure.label(row) for row in range(2)] == ["AA:5", "AA:6A"]
    sequence = ResidueRows.of("x", "sequence", [chain], np.zeros((4, 1), np.float32))
    assert [sequence.label(row) for row in range(4)] == ["AA:5", "AA:6", "AA:6A", "AA:?"]
    assert sequence.residues[3] == ("AA", None, "")
    with pytest.raises(ValueError, match="different numbers"):
        ResidueRows.of("x", "sequence", [chain], np.zeros((3, 1), np.float32))


@pytest.fixture(scope="module")
def model(fitted: ProtAlignEstimator) -> Model:
    """A model with a residue stage."""
    return fitted.model_


def rows(model: Model, store: EmbeddingStore, entry_id: str) -> tuple[ResidueRows, ResidueRows]:
    """An entry's sequence and structure."""
    found = [stored_rows(model, store, entry_id, m) for m in ("sequence", "structure")]
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def test_a_sequence_is_on_its_own_structure(model: Model, store: EmbeddingStore) -> None:
    """Scores are the model's; the ratios of the rows are the products of the stage's rows."""
    sequence, structure = rows(model, store, "1a2p_A")
    aligned = align_proteins(model, sequence, structure)
    assert aligned.chains == ()
    assert aligned.matched == (aligned.whole,)
    found = aligned.whole.alignment
    expected = model.align(sequence.embeddings, structure.embeddings)
    assert found.score == expected.score
    np.testing.assert_array_equal(found.query_rows, expected.query_rows)
    assert (found.query_rows == found.target_rows).mean() > 0.9
    back = align_proteins(model, structure, sequence).whole.alignment
    assert back.score == pytest.approx(found.score, rel=1e-3)


def test_each_chain_with_each(model: Model, store: EmbeddingStore) -> None:
    """Of two complexes with their chains in another order, each chain is matched with its own.

    The whole keeps their order, so it has one of them.
    """
    query = complex_of(model, store, ["1a2p_A", "1bpi_A"], 0)
    target = complex_of(model, store, ["1bpi_A", "1a2p_A"], 1)
    aligned = align_proteins(model, query, target, "global")
    names = [(each.query.name, each.target.name) for each in aligned.all]
    every = [(f"both_{a}", f"both_{b}") for a in "AB" for b in "AB"]
    assert names == [("both", "both"), *every]
    assert [(each.query.part, each.target.part) for each in aligned.matched] == [
        ("A", "B"),
        ("B", "A"),
    ]
    alone = align_proteins(
        model, rows(model, store, "1a2p_A")[0], rows(model, store, "1a2p_A")[1], "global"
    )
    assert aligned.matched[0].alignment.score == alone.whole.alignment.score
    best = max(aligned.matched, key=lambda each: each.alignment.score)
    assert aligned.whole.alignment.score == best.alignment.score
    assert aligned.whole.identical == best.identical
    support = support_of(model, aligned)
    own = len(rows(model, store, "1bpi_A")[1])
    np.testing.assert_allclose(
        support.ratios[own:], alone.whole.alignment.residue_scores, atol=1e-3
    )
    assert support.verdicts.count("supported") > 0.9 * len(support.structure)
    assert as_dict(aligned.matched[0])["query"]["chain"] == "A"


def test_an_unknown_residue_has_no_verdict_of_the_fit(model: Model, store: EmbeddingStore) -> None:
    """An X may be any amino acid: it is "unknown", whatever its neighbours are."""
    sequence, structure = rows(model, store, "1a2p_A")
    letters = "".join("X" if 20 <= i < 24 else letter for i, letter in enumerate(sequence.letters))
    supports = [
        support_of(model, align_proteins(model, replace(sequence, letters=each), structure))
        for each in (sequence.letters, letters)
    ]
    known, unknown = (np.array(support.verdicts) for support in supports)
    masked = np.isin(supports[0].sequence_rows, np.arange(20, 24))
    assert masked.sum() == 4
    assert set(known[masked]) == {"supported"}
    assert set(unknown[masked]) == {"unknown"}
    np.testing.assert_array_equal(unknown[~masked], known[~masked])
    assert supports[1].counts()["unknown"] == 4
    assert "unknown" not in supports[0].counts()


def test_unrelated_complexes_show_what_the_fit_counts(model: Model, store: EmbeddingStore) -> None:
    """No pair of chains has a score above 0: the best one is shown and counted, as of one chain."""
    query = complex_of(model, store, ["1bpi_A", "1bpi_A"], 0)
    target = complex_of(model, store, ["1c9o_A", "1acb_I"], 1)
    aligned = align_proteins(model, query, target, "global")
    assert max(each.alignment.score for each in aligned.all) < 0
    (best,) = aligned.matched
    assert best.alignment.score == aligned.whole.alignment.score
    whole = aligned.whole.alignment
    support = support_of(model, aligned)
    assert np.flatnonzero(support.sequence_rows >= 0).tolist() == whole.target_rows.tolist()
    assert support.sequence_rows[whole.target_rows].tolist() == whole.query_rows.tolist()
    np.testing.assert_allclose(support.ratios[whole.target_rows], whole.residue_scores, atol=1e-3)
    assert len(support.values()) == len(whole)
    text = shown(AlignResults(((aligned, support),), (), {}), "text")
    names = f"  {best.query.name}  {best.target.name}  "
    starred = [line for line in text.splitlines() if line.endswith(" *")]
    assert len(starred) == 1
    assert starred[0].startswith(names)
    assert f"{best.query.name} (sequence, 58 residues) on {best.target.name} (struct" in text
    assert len(whole) == 1
    assert " nats (" in text
    assert ", 1 pair, " in text
    assert text.endswith(": unsupported 1%, unaligned 99%\n")


def test_bits_are_those_of_the_e_value(model: Model, store: EmbeddingStore) -> None:
    """As in hits: the E-value is 2 ** -bits. Without an E-value bits are the score's."""
    sequence, structure = rows(model, store, "1bpi_A")
    found = align_proteins(model, sequence, structure).whole
    evalue, bits = found.alignment.evalue, found.alignment.bits
    assert evalue is not None
    assert bits is not None
    assert evalue == pytest.approx(2.0**-bits)
    assert found.bits == as_dict(found)["bits"] == bits
    cells = dict(zip(M8_COLUMNS, m8(found).split("\t"), strict=True))
    assert float(cells["evalue"]) == pytest.approx(2 ** -float(cells["bits"]), rel=0.05)
    score = f"score {found.alignment.score:.1f} nats, E-value {evalue:.2g} ({bits:.1f} bits), "
    assert score in blocks(found)
    among = model.align(sequence.embeddings, structure.embeddings, n_targets=1000)
    assert among.bits == bits
    assert among.evalue == pytest.approx(1000 * 2.0**-bits)
    for options in ({"mode": "global"}, {"gap_open": 10.0}):
        found = align_proteins(model, sequence, structure, **options).whole  # type: ignore[arg-type]
        assert found.alignment.bits is None
        assert found.bits == found.alignment.score / np.log(2)
        assert m8(found).split("\t")[-2:] == ["", f"{found.bits:.1f}"]
        assert f"score {found.alignment.score:.1f} nats ({found.bits:.1f} bits), " in blocks(found)


def test_a_local_alignment_knows_the_global_score(model: Model, store: EmbeddingStore) -> None:
    """It is the score of global mode: of the whole, and of each chain with each."""
    names = ["1a2p_A", "1bpi_A"]
    complexes = [complex_of(model, store, names, place, lacking=7 * place) for place in (0, 1)]
    for query, target in (complexes, rows(model, store, "1bpi_A")):
        local, diagonal = (align_proteins(model, query, target, m) for m in ("local", "global"))
        assert len(local.all) == len(diagonal.all)
        for one, other in zip(local.all, diagonal.all, strict=True):
            assert one.alignment.mode == "local"
            assert one.alignment.global_score == other.alignment.score
            assert other.alignment.global_score == other.alignment.score
            score = f"\nglobal score {other.alignment.score:.1f} nats: the best diagonal"
            assert score in blocks(one)
            assert "global score" not in blocks(other)
            assert as_dict(one)["global_score"] == other.alignment.score


def test_the_whole_survives_residues_that_one_lacks(model: Model, store: EmbeddingStore) -> None:
    """Each chain keeps its own diagonal: that of the whole would break at the second chain."""
    names = ["1a2p_A", "1bpi_A"]
    query = complex_of(model, store, names, 0)
    target = complex_of(model, store, names, 1, lacking=7)
    aligned = align_proteins(model, query, target, "global")
    assert [(each.query.part, each.target.part) for each in aligned.matched] == [
        ("A", "A"),
        ("B", "B"),
    ]
    whole = aligned.whole.alignment
    assert whole.score == pytest.approx(sum(each.alignment.score for each in aligned.matched))
    assert whole.residue_scores.sum() == pytest.approx(whole.score, rel=1e-3)
    assert len(whole) == len(target)
    assert (np.diff(whole.target_rows) == 1).all()
    assert (whole.query_rows - whole.target_rows == 7 * target.chain_index).all()
    assert aligned.whole.identical == len(target)


def complex_of(
    model: Model, store: EmbeddingStore, ids: list[str], place: int, lacking: int = 0
) -> ResidueRows:
    """The sequence (0) or the structure (1) of two chains; the first lacks its last residues."""
    parts = [rows(model, store, entry_id)[place] for entry_id in ids]
    values = [part.embeddings for part in parts]
    values[0] = values[0][: len(values[0]) - lacking]
    chains = []
    for name, entry_id in zip("AB", ids, strict=True):
        (c,) = stored_chains(store, entry_id)
        backbone = c.backbone
        if name == "A" and lacking:
            assert backbone is not None
            coordinates = backbone.coordinates.copy()
            coordinates[len(coordinates) - lacking :] = np.nan
            backbone = Backbone(coordinates)
        chains.append(
            Chain(name, c.sequence, c.residue_numbers, c.insertion_codes, c.observed, backbone)
        )
    return ResidueRows.of("both", parts[0].modality, chains, np.concatenate(values))


def test_residues_without_a_row_know_the_rows_before_them() -> None:
    """Those of all chains before theirs count too."""
    chains = []
    for name, lacking in (("A", [1]), ("B", [0, 2])):
        chain = _with_backbone("MKVLA")
        assert chain.backbone is not None
        coordinates = chain.backbone.coordinates.copy()
        coordinates[lacking] = np.nan
        chains.append(replace(chain, id=name, backbone=Backbone(coordinates)))
    structure = ResidueRows.of("two", "structure", chains, np.zeros((7, 1), np.float32))
    found = [(each.before, each.chain, each.letter) for each in structure.incomplete]
    assert found == [(1, "A", "K"), (4, "B", "M"), (5, "B", "V")]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", ["local", "global"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_protein_that_is_not_finite_is_named(
    model: Model, store: EmbeddingStore, number: float, mode: AlignMode, side: int
) -> None:
    """It is not aligned: neither in an alignment of nonsense, nor in a traceback."""
    proteins = list(rows(model, store, "1bpi_A"))
    values = proteins[side].embeddings.astype(np.float32)
    values[3, 5] = number
    proteins[side] = replace(proteins[side], embeddings=values)
    named = f"^1bpi_A: its {proteins[side].modality} embedding holds NaN, infinity or huge values; "
    with pytest.raises(InputError, match=named):
        align_proteins(model, proteins[0], proteins[1], mode)
    alone = f"the {proteins[side].modality} embeddings: they hold NaN"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wrong in (number, 3e38, 1e300):  # the last is too large for float32
            embeddings = [protein.embeddings.astype(np.float64) for protein in proteins]
            embeddings[side][3, 5] = wrong
            with pytest.raises(InputError, match=alone):
                model.align(*embeddings, mode)


def test_what_cannot_be_aligned_is_a_line(
    model: Model, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sequences, other widths, costs that are none, a model without a residue stage."""
    sequence, structure = rows(model, store, "1bpi_A")
    with pytest.raises(InputError, match="both are sequences"):
        align_proteins(model, sequence, sequence)
    both, every = (sequence.embeddings, structure.embeddings), np.arange(len(structure))
    far = every.copy()
    far[-1] = np.iinfo(np.int64).max
    for positions in (
        *([0, 1], np.zeros(len(structure)), every[::-1], every * 1.0, every + 0.5, every * np.nan),
        *(every[::-1].astype(np.uint32), [*every[:-1], every[-2]], every.astype(str), every - 1),
    ):
        with pytest.raises(InputError, match=r"^target_positions: not 58 ascending whole numbers "):
            model.align(*both, "global", target_positions=np.asarray(positions))
    too_much = r"^query and target: .* residues take [\d.]+ GB to align, more than is free; "
    with pytest.raises(InputError, match=too_much + "give positions that lie closer"):
        model.align(*both, "global", target_positions=far)
    long = [np.broadcast_to(of[:1], (3_000, of.shape[1])) for of in both]
    monkeypatch.setattr(alignment, "free_memory", lambda: 100_000_000)
    assert len(model.align(*long, "global")) == 3_000  # 72 MB, with gaps five times as much
    monkeypatch.setattr(alignment, "free_memory", lambda: 70_000_000)
    for mode in get_args(AlignMode):
        with pytest.raises(InputError, match=too_much + "align single chains or domains"):
            model.align(*long, mode)
    monkeypatch.undo()
    with pytest.raises(InputError, match="gap_open=-1: not a cost"):
        align_proteins(model, sequence, structure, gap_open=-1)
    with pytest.raises(InputError, match="gap_extend=nan: not a cost"):
        align_proteins(model, sequence, structure, gap_extend=float("nan"))
    with pytest.raises(InputError, match="mode"):
        align_proteins(model, sequence, structure, "best")  # type: ignore[arg-type]
    bare = Model(model.dims, ContrastiveLoss("clip"), embed_dim=8)
    with pytest.raises(ModelError, match="no residue stage"):
        align_proteins(bare, sequence, structure)
    other = ResidueRows.of(
        "1bpi_A", "sequence", stored_chains(store, "1bpi_A"), np.zeros((58, 3), np.float32)
    )
    with pytest.raises(ModelError, match="20"):
        align_proteins(model, other, structure)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "mode='best'"),
        ({"query_by": "letters"}, "query_by='letters'"),
        ({"gap_open": -1.0}, "gap_open=-1: not a cost"),
        ({"gap_extend": float("nan")}, "gap_extend=nan: not a cost"),
        ({"mode": "global", "floor": float("nan")}, "floor=nan: out of range"),
        ({"mode": "global", "floor": 1.0}, "floor=1.0: out of range"),
    ],
)
def test_a_model_refuses_what_is_no_option(
    model: Model, store: EmbeddingStore, options: dict[str, Any], message: str
) -> None:
    """In a line, also if nobody has looked at the options before."""
    sequence, structure = rows(model, store, "1bpi_A")
    with pytest.raises(InputError, match=message):
        model.align(sequence.embeddings, structure.embeddings, **options)


@pytest.fixture(scope="module")
def supported(model: Model, store: EmbeddingStore) -> ResidueSupport:
    """The fit of a part of 1a2p_A's sequence to its structure."""
    sequence, structure = rows(model, store, "1a2p_A")
    chain = stored_chains(store, "1a2p_A")[0]
    part = Chain.from_sequence(chain.sequence[20:80])
    query = ResidueRows.of("part", "sequence", [part], sequence.embeddings[20:80])
    return support_of(model, align_proteins(model, query, structure, "global"))


def test_the_table_has_each_residue_of_the_structure(supported: ResidueSupport) -> None:
    """Aligned ones with the sequence's residue and their ratio, others without."""
    lines = list(csv.DictReader(StringIO(table(supported)), delimiter="\t"))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == len(supported.structure)
    assert [line["letter"] for line in lines] == list(supported.structure.letters)
    assert [f"{line['chain']}:{line['number']}{line['icode']}" for line in lines] == [
        supported.structure.label(row) for row in range(len(lines))
    ]
    aligned = [line for line in lines if line["ratio"]]
    assert [line["sequence_number"] for line in aligned] == [str(n) for n in range(1, 61)]
    assert {line["verdict"] for line in lines if not line["ratio"]} == {"unaligned"}
    np.testing.assert_allclose(
        [float(line["ratio"]) for line in aligned],
        supported.ratios[supported.sequence_rows >= 0],
        atol=1e-3,
    )


def test_the_table_has_residues_without_a_backbone(model: Model, store: EmbeddingStore) -> None:
    """Those that lack an atom are lines without numbers, in their place; counts have them too."""
    query = complex_of(model, store, ["1a2p_A", "1bpi_A"], 0)
    structure = complex_of(model, store, ["1a2p_A", "1bpi_A"], 1, lacking=7)
    support = support_of(model, align_proteins(model, query, structure, "global"))
    lines = list(csv.DictReader(StringIO(table(support)), delimiter="\t"))
    every = [residue for row in range(len(query)) for residue in [query.residues[row]]]
    assert [(line["chain"], int(line["number"]), line["icode"]) for line in lines] == every
    assert [line["letter"] for line in lines] == list(query.letters)
    first = [line["chain"] for line in lines].count("A")
    incomplete = [place for place, line in enumerate(lines) if line["verdict"] == "incomplete"]
    assert incomplete == list(range(first - 7, first))
    for place in incomplete:
        assert not any(lines[place][name] for name in COLUMNS[4:-1])
    assert support.counts()["incomplete"] == 7
    assert sum(support.counts().values()) == len(lines)
    assert structure.chain(0).incomplete == ()


def test_ratios_are_b_factors(supported: ResidueSupport, tmp_path: Path) -> None:
    """All atoms of the source have them; the store's backbone if the source is another file."""
    for known in (True, False):
        structure = supported.structure
        source = structure if known else replace(structure, source_sha256=b"another")
        changed = replace(supported, structure=source)
        files, all_atoms = write_support(changed, tmp_path / f"fit_{known}")
        assert all_atoms == known
        model = gemmi.read_structure(str(files[1]))[0]
        found = {
            (chain.name, residue.seqid.num, residue.seqid.icode.strip()): residue[0].b_iso
            for chain in model
            for residue in chain
        }
        for residue, ratio in zip(structure.residues, supported.ratios.tolist(), strict=True):
            value = 0 if np.isnan(ratio) else ratio
            assert found[residue] == pytest.approx(value, abs=0.006)


def test_own_support_pairs_by_the_residue_map(model: Model, store: EmbeddingStore) -> None:
    """Each structure row with its own residue; an entry without a structure is a failure."""
    results = list(own_support(model, store[["1bpi_A", "fasta", "1a2p_A"]]))
    assert isinstance(results[1], Failure)
    assert results[1].id == "fasta"
    for result, entry_id in ((results[0], "1bpi_A"), (results[2], "1a2p_A")):
        assert isinstance(result, ResidueSupport)
        residues = store.residue_map(entry_id)
        np.testing.assert_array_equal(result.sequence_rows, residues.sequence_index)
        stage = model.residue_scorer()
        sequence = stage.rows("sequence", store[entry_id].embeddings("one_hot").values)
        structure = stage.rows("structure", store[entry_id].embeddings(PROTEINMPNN).values)
        expected = (sequence[residues.sequence_index] * structure).sum(axis=1)
        np.testing.assert_allclose(result.ratios, expected, atol=1e-3)
