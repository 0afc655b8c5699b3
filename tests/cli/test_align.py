"""``protalign align``: files, ids and sequences, the folder it writes, and ``attention --fit``."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from protalign import EmbeddingStore, Model
from protalign.core.errors import WriteError
from protalign.search.align_files import JSON, M8, TEXT, align_texts, check_folder, write_folder
from tests.helpers.commands import run


def align(finished: Path, *words: object, code: int = 0) -> dict[str, Any]:
    """Return the document that --json prints."""
    done = run("align", *words, "--model", finished / "model", "--json", code=code)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def refused(finished: Path, *words: object) -> str:
    """Return the one line of a command that ends with exit code 2."""
    done = run("align", *words, "--model", finished / "model", code=2)
    (line,) = done.stderr.splitlines()
    return line


def shifted(letters: str, first: int, length: int, shift: int) -> str:
    """Return letters of which a stretch is shifted."""
    moved = letters[first + shift : first + shift + length]
    return letters[:first] + moved + letters[first + length :]


def test_a_shifted_stretch_is_found_in_the_files(
    finished: Path, sample: Path, tmp_path: Path
) -> None:
    """A FASTA record on a structure file: text, tables and B-factors say where it is shifted."""
    store = EmbeddingStore.open(finished / "store.zarr")
    letters = store.sequence("1a2p_A")[0]
    query, out = tmp_path / "query.fasta", tmp_path / "out"
    query.write_text(f">built\n{shifted(letters, 44, 20, 2)}\n")
    words = ("align", query, sample / "1a2p_A.pdb.gz", "--model", finished / "model")
    text = run(*words, "--mode", "global", "--out", out).stdout
    names = [TEXT, M8, JSON, *(f"built_1a2p_A{s}" for s in (".a3m", ".fasta", ".fit.tsv", ".pdb"))]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert (out / TEXT).read_text() == text
    document = json.loads((out / JSON).read_text())
    (result,) = document["results"]
    whole = result["whole"]
    (slip,) = result["fit"]["shifted"]
    residues = store.residue_map("1a2p_A").residue_numbers
    assert slip["shift"] == 2
    assert abs(slip["first"]["number"] - residues[44]) <= 4
    assert abs(slip["last"]["number"] - residues[63]) <= 4
    assert f"A:{slip['first']['number']} to A:{slip['last']['number']} fits 2 residues" in text
    assert whole["target_residues"]["numbers"] == residues.tolist()
    assert whole["query_residues"]["letters"] == shifted(letters, 44, 20, 2)
    with (out / "built_1a2p_A.fit.tsv").open(newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert [int(row["number"]) for row in table] == residues.tolist()
    model = gemmi.read_structure(str(out / "built_1a2p_A.pdb"))[0]
    factors = {residue.seqid.num: residue[0].b_iso for residue in model["A"].get_polymer()}
    for row, ratio in zip(table, whole["ratios"], strict=True):
        assert float(row["ratio"]) == pytest.approx(ratio, abs=1e-3)
        assert factors[int(row["number"])] == pytest.approx(max(ratio, -99.99), abs=0.006)
    (line,) = (out / M8).read_text().splitlines()
    assert line.split("\t")[:2] == ["built", "1a2p_A"]
    assert run(*words, "--format", "m8", "--mode", "global").stdout.splitlines() == [line]


def test_a_shift_is_found_behind_gaps(finished: Path, sample: Path, tmp_path: Path) -> None:
    """A local alignment follows it with two gaps; it is reported as in global mode."""
    letters = EmbeddingStore.open(finished / "store.zarr").sequence("1a2p_A")[0]
    query, target = tmp_path / "query.fasta", sample / "1a2p_A.pdb.gz"
    query.write_text(f">built\n{shifted(letters, 44, 20, 2)}\n")
    (local,), (straight,) = (
        align(finished, query, target, "--mode", mode)["results"] for mode in ("local", "global")
    )
    assert local["whole"]["gap_openings"] == 2
    assert "shifted" not in local["fit"]["verdicts"]
    (slip,), (expected,) = local["fit"]["shifted"], straight["fit"]["shifted"]
    assert slip == {**expected, "followed": True}
    assert not expected["followed"]
    assert local["whole"]["global_score"] == straight["whole"]["score"]
    text = run("align", query, target, "--model", finished / "model").stdout
    assert "fits 2 residues further on" in text
    assert "; a gap out and a gap back follow it\n" in text
    assert f"global score {straight['whole']['score']:.1f} nats" in text


def test_a_diagonal_goes_on_behind_residues_without_a_backbone(
    finished: Path, sample: Path, tmp_path: Path
) -> None:
    """Three residues in the middle lack O: only they are not aligned, and the rest still is."""
    lines = gzip.decompress((sample / "1a2p_A.pdb.gz").read_bytes()).decode().splitlines()
    numbers = {" 50 ", " 51 ", " 52 "}
    kept = [
        line
        for line in lines
        if not (line.startswith("ATOM") and line[12:16] == " O  " and line[23:27] in numbers)
    ]
    assert len(lines) - len(kept) == 3
    target = tmp_path / "lacking.pdb"
    target.write_text("\n".join(kept))
    (whole,), (result,) = (
        align(finished, "1a2p_A", each, "--store", finished / "store.zarr", "--mode", "global")[
            "results"
        ]
        for each in (sample / "1a2p_A.pdb.gz", target)
    )
    rows = EmbeddingStore.open(finished / "store.zarr").residue_map("1a2p_A").residue_numbers
    numbers_of = {}
    for name, each in (("whole", whole["whole"]), ("lacking", result["whole"])):
        numbers_of[name] = each["target_residues"]["numbers"]
        assert each["query_residues"]["numbers"] == numbers_of[name]
    assert numbers_of["whole"] == rows.tolist()
    assert numbers_of["lacking"] == [n for n in rows.tolist() if n not in (50, 51, 52)]
    assert result["whole"]["score"] > 0.8 * whole["whole"]["score"]


def test_the_document_names_each_file(finished: Path, sample: Path, tmp_path: Path) -> None:
    """Ids that give one name, or lead out of the folder, have files that results tell apart."""
    query, out = tmp_path / "query.fasta", tmp_path / "out"
    letters = "RPDFCLEPPYTGPCKARIIRYFYNAKAG"
    ids = ["../../a/b", "..=..=a_b", ".._.._a_b", "x" * 200]
    query.write_text("".join(f">{each}\n{letters[place:]}\n" for place, each in enumerate(ids)))
    words = ("align", query, sample / "1bpi_A.cif", "--model", finished / "model", "--out", out)
    document = json.loads(run(*words, "--json").stdout)
    assert json.loads((out / JSON).read_text()) == document
    results = document["results"]
    assert [{file["query"] for file in each["files"]} for each in results] == [{i} for i in ids]
    named = [file["file"] for each in results for file in each["files"]]
    assert sorted([*named, TEXT, M8, JSON]) == sorted(path.name for path in out.iterdir())
    assert set(tmp_path.iterdir()) == {query, out}
    for result in results:
        files = {file["format"]: out / file["file"] for file in result["files"]}
        assert set(files) == {"a3m", "fasta", "fit", "structure"}
        lines = files["a3m"].read_text().splitlines()
        assert lines[1] == letters[results.index(result) :]
        with files["fit"].open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        shown = [row["ratio"] for row in rows if row["ratio"]]
        expected = [f"{ratio:.3f}" for ratio in result["whole"]["ratios"]]
        assert [float(each) for each in shown] == pytest.approx(
            list(map(float, expected)), abs=2e-3
        )
        assert gemmi.read_structure(str(files["structure"]))[0]["A"]
    assert align(finished, query, sample / "1bpi_A.cif")["results"][0]["files"] == []


def test_ids_of_a_store_need_no_encoder(finished: Path) -> None:
    """Rows come from the store; the modality of the query can be chosen."""
    store = finished / "store.zarr"
    document = align(finished, "1b5m_A", "1b5m_A", "--store", store)
    opened = EmbeddingStore.open(store)
    model = Model.load(finished / "model")
    views = opened["1b5m_A"]
    rows = [views.embeddings(name).values for name in ("protalign_t6_2M", "proteinmpnn_v_48_020")]
    (result,) = document["results"]
    assert result["whole"]["score"] == pytest.approx(model.align(*rows).score, rel=1e-6)
    assert result["whole"]["query"]["modality"] == "sequence"
    back = align(
        finished,
        "1b5m_A",
        "1b5m_A",
        "--store",
        store,
        "--query-by",
        "structure",
        "--mode",
        "global",
    )["results"][0]["whole"]
    assert back["query"]["modality"] == "structure"
    assert back["query_residues"]["numbers"] == back["target_residues"]["numbers"]


def write_complex(sample: Path, path: Path) -> None:
    """Write a file of two chains: A is 1bpi's, C is 1azp's."""
    both = gemmi.read_structure(str(sample / "1bpi_A.cif"))
    other = gemmi.read_structure(str(sample / "1azp_A.pdb.gz"))
    added = other[0]["A"].clone()
    added.name = "C"
    both[0].add_chain(added)
    both.setup_entities()
    path.write_text(both.make_pdb_string())


def test_the_files_of_chains_have_their_names(finished: Path, sample: Path, tmp_path: Path) -> None:
    """Each names the two that are aligned in it; a chain that fits nowhere has none."""
    write_complex(sample, tmp_path / "complex.pdb")
    query, target = str(sample / "1azp_A.pdb.gz"), str(tmp_path / "complex.pdb")
    results = align_texts(query, target, finished / "model")
    ((aligned, support),) = results.alignments
    first, second = aligned.chains
    none = np.empty(0, dtype=np.int64)
    nothing = {"query_rows": none, "target_rows": none, "residue_scores": none.astype(np.float32)}
    first = replace(first, alignment=replace(first.alignment, **nothing))
    changed = replace(aligned, chains=(first, second))
    results = replace(results, alignments=((changed, support),))
    (files,) = write_folder(results, tmp_path / "out").files
    assert sorted((each.target, each.form) for each in files) == [
        *(("complex", form) for form in ("a3m", "fasta", "fit", "structure")),
        *(("complex_C", form) for form in ("a3m", "fasta")),
    ]
    for each in files:
        assert each.query == "1azp_A"
        if each.form == "a3m":
            lines = (tmp_path / "out" / each.file).read_text().splitlines()
            assert lines[2].startswith(f">{each.target}/")


def test_each_chain_of_a_complex(finished: Path, sample: Path, tmp_path: Path) -> None:
    """Of two structure files the chains are matched, and the residues are named by both files."""
    write_complex(sample, tmp_path / "complex.pdb")
    document = align(finished, sample / "1azp_A.pdb.gz", tmp_path / "complex.pdb")
    (result,) = document["results"]
    names = [each["target"]["name"] for each in result["chains"]]
    assert names == ["complex_A", "complex_C"]
    assert result["matched"] == [["1azp_A", "complex_C"]]
    chosen = result["chains"][1]
    assert set(chosen["target_residues"]["chains"]) == {"C"}
    numbers = [chosen[f"{side}_residues"]["numbers"] for side in ("query", "target")]
    assert sum(a == b for a, b in zip(*numbers, strict=True)) > 0.7 * 66
    text = run(
        *("align", sample / "1azp_A.pdb.gz", tmp_path / "complex.pdb"),
        *("--model", finished / "model"),
    ).stdout
    assert "complex_C  " in text
    whole = result["whole"]
    assert f"  {whole['score']:.1f}  {whole['global_score']:.1f}" in text
    assert "query, target, pairs, score and global score in nats (*" in text
    assert "C:1 " in text


def test_one_bad_protein_stops_no_other(finished: Path, sample: Path, tmp_path: Path) -> None:
    """A record that cannot be read is a line and exit code 3; the others are aligned."""
    query = tmp_path / "some.fasta"
    query.write_text(">good/one\nRPDFCLEPPYTGPCKARIIRYFYNAKAG\n>bad\nMK1V\n")
    out = tmp_path / "out"
    done = run(
        *("align", query, sample / "1bpi_A.cif", "--model", finished / "model", "--out", out),
        code=3,
    )
    assert "(bad)" in done.stderr
    assert (out / "good_one_1bpi_A.a3m").is_file()
    query.write_text(">bad\nMK1V\n")
    run(
        *("align", query, sample / "1bpi_A.cif", "--model", finished / "model", "--out", out),
        code=3,
    )
    assert (out / "good_one_1bpi_A.a3m").is_file(), "nothing was aligned, so nothing is replaced"
    query.write_text(">good/one\nRPDFCLEPPYTGPCKARIIRYFYNAKAG\n>bad\nMK1V\n")
    document = align(finished, query, sample / "1bpi_A.cif", code=3)
    assert [failure["id"] for failure in document["failures"]] == ["bad"]


def test_wrong_usage_is_one_line(finished: Path, sample: Path, tmp_path: Path) -> None:
    """Two sequences, an unknown name, contradicting options, costs that are none."""
    letters = "RPDFCLEPPYTGPCKARIIRYFYNAKAG"
    structure = sample / "1bpi_A.cif"
    assert "neither has a structure" in refused(finished, letters, letters)
    assert "no file or folder has this name" in refused(finished, "1abc.cif", structure)
    assert "did you mean '1bpi_A'" in refused(
        finished, "1bpi_B", structure, "--store", finished / "store.zarr"
    )
    assert "contradicts --json" in refused(finished, letters, structure, "--json", "--format", "m8")
    for option in ("--gap-open", "--gap-extend"):
        line = refused(finished, letters, structure, "--mode", "global", option, "3")
        assert line == (
            f"protalign: {option}: has no effect with --mode global; leave one of the two out"
        )
    assert "gap_open=-3: not a cost" in refused(finished, letters, structure, "--gap-open", "-3")
    assert "it has no structure" in refused(finished, letters, structure, "--query-by", "structure")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    line = refused(finished, letters, structure, "--out", tmp_path / "mine")
    assert "not a folder of alignments" in line
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_only_a_folder_of_alignments_is_replaced(tmp_path: Path) -> None:
    """An empty folder and one that align wrote may be; a file, a link and others may not."""
    check_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty")
    (tmp_path / "empty" / JSON).write_text('{"schema": "protalign alignments"}')
    check_folder(tmp_path / "empty")
    for content in ('{"schema": "other"}', "[]", "{"):
        (tmp_path / "empty" / JSON).write_text(content)
        with pytest.raises(WriteError, match="not a folder of alignments"):
            check_folder(tmp_path / "empty")
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for name in ("file", "broken"):
        with pytest.raises(WriteError, match="not a folder of alignments"):
            check_folder(tmp_path / name)


def test_attention_writes_the_fit(finished: Path, sample: Path, tmp_path: Path) -> None:
    """Each entry's own sequence on its structure: a table, and all atoms with B-factors."""
    out, store = tmp_path / "fit", finished / "store.zarr"
    words = ("attention", store, "1a2p_A", "1bpi_A", "--model", finished / "model", "--out", out)
    text = run(*words, "--fit").stdout
    assert text.count("supported") == 2
    assert sorted(path.name for path in out.iterdir()) == [
        *("1a2p_A.fit.tsv", "1a2p_A.pdb", "1bpi_A.cif", "1bpi_A.fit.tsv")
    ]
    document = json.loads(run(*words, "--fit", "--overwrite", "--json").stdout)
    assert [entry["id"] for entry in document["files"]] == ["1a2p_A", "1bpi_A"]
    assert all(entry["all_atoms"] for entry in document["files"])
    assert "2 failed" in run(*words, "--fit", code=3).stderr
    assert "--head: has no effect with --fit" in run(*words, "--fit", "--head", 1, code=2).stderr
