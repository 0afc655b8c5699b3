"""Files as other programs write them: each is the protein that the plain file is.

The cases are made from two of the sample's chains, after what users of other tools reported.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from protalign.core.protein import Protein
from protalign.reading import ReadOptions, SourceFile, SourceResult, read_source
from protalign.reading.residue_names import residue_letter
from protalign.reading.structure_writer import write_with_b_factors
from tests.helpers.reading_files import as_bcif, assert_same_chain, read_b_factors

SAMPLE = Path(__file__).parents[2] / "examples" / "sample"
CASES = Path(__file__).parents[1] / "data" / "cases"
DEPOSITED = ReadOptions(sequence="deposited")
PER_CHAIN = ReadOptions(per="chain")


def atoms_of(name: str) -> list[str]:
    """The atom lines of a sample's PDB file."""
    text = gzip.decompress((SAMPLE / f"{name}.pdb.gz").read_bytes()).decode()
    return [line for line in text.splitlines() if line.startswith("ATOM")]


SHORT, LONG = atoms_of("1vqb_A"), atoms_of("1flq_A")
TER, END = "TER", "END"


def text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def result_of(
    folder: Path, content: str | bytes, kind: str = "pdb", options: ReadOptions | None = None
) -> SourceResult:
    path = folder / f"entry.{'cif' if kind == 'mmcif' else kind}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source(SourceFile(path, "entry", kind), options)  # type: ignore[arg-type]


def protein_of(
    folder: Path, content: str | bytes, kind: str = "pdb", options: ReadOptions | None = None
) -> Protein:
    result = result_of(folder, content, kind, options)
    assert result.failures == []
    [protein] = result.proteins
    return protein


def reason_of(folder: Path, content: str | bytes, kind: str = "pdb") -> str:
    result = result_of(folder, content, kind)
    assert result.proteins == []
    [failure] = result.failures
    assert failure.advice
    assert failure.reason.isprintable()
    return failure.reason


def assert_same(one: Protein, other: Protein) -> None:
    """The same chains under the same names."""
    assert len(one.chains) == len(other.chains)
    for left, right in zip(one.chains, other.chains, strict=True):
        assert_same_chain(left, right)


def edited(
    lines: Iterable[str],
    *,
    chain: str | None = None,
    shift: tuple[float, float, float] = (0, 0, 0),
    number: int = 0,
    segment: str | None = None,
) -> list[str]:
    """Atom lines with another chain letter, place, numbering or segment."""
    made = []
    for line in lines:
        line = line.ljust(80)
        xyz = [float(line[at : at + 8]) + d for at, d in zip((30, 38, 46), shift, strict=True)]
        line = line[:30] + "".join(f"{x:8.3f}" for x in xyz) + line[54:]
        line = f"{line[:22]}{int(line[22:26]) + number:4d}{line[26:]}"
        if chain is not None:
            line = line[:21] + chain + line[22:]
        if segment is not None:
            line = line[:72] + segment.ljust(4) + line[76:]
        made.append(line)
    return made


def renamed(lines: Iterable[str], names: dict[str, list[str]]) -> list[str]:
    """Atom lines whose residues of each name take the other names in turn."""
    made = []
    for line in lines:
        name, number = line[17:20], int(line[22:26])
        if name in names:
            other = names[name][number % len(names[name])]
            line = line[:17] + f"{other:<4}"[:4].rjust(4) + line[21:]
            if len(other) == 3:
                line = line[:17] + other + " " + line[21:]
        made.append(line)
    return made


@pytest.fixture
def plain(tmp_path: Path) -> Callable[[list[str]], Protein]:
    """Read atom lines as a plain file."""
    folder = tmp_path / "plain"
    folder.mkdir()
    return lambda lines: protein_of(folder, text([*lines, TER, END]))


FORMS = {
    "HIS": ["HID", "HIE", "HIP", "HSD", "HSE", "HSP", "HISD", "HISE", "HISH", "HIS1"],
    "ASP": ["ASH", "ASPP", "ASPH"],
    "GLU": ["GLH", "GLUP", "GLUH"],
    "LYS": ["LYN", "LSN", "LYP", "LYSH"],
    "CYS": ["CYX", "CYM", "CYS2", "CYN", "CYSH", "CYT"],
    "ARG": ["ARN", "AR0", "ARGN"],
    "TYR": ["TYM", "TYO"],
    "SER": ["S1P", "SERD"],
    "THR": ["T1P", "THO"],
}


@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("options", [None, DEPOSITED], ids=["observed", "deposited"])
def test_names_of_force_fields_are_their_parents(
    tmp_path: Path,
    plain: Callable[[list[str]], Protein],
    turn: int,
    options: ReadOptions | None,
) -> None:
    """Protonation states, disulfides, metal-bound and phosphorylated residues keep their letter."""
    forms = {name: others[turn % len(others) :][:1] for name, others in FORMS.items()}
    names = [forms.get(line[17:20], [line[17:20]])[0] for line in LONG if line[12:16] == " CA "]
    seqres = [
        f"SEQRES{at // 13 + 1:4d} A{len(names):5d}  " + " ".join(n[:3] for n in names[at : at + 13])
        for at in range(0, len(names), 13)
    ]
    lines = renamed(LONG, forms)
    assert lines != LONG
    header = [] if any(len(n) > 3 for n in names) else seqres
    protein = protein_of(tmp_path, text([*header, *lines, TER, END]), options=options)
    assert_same(protein, plain(LONG))
    assert not any("X" in note or "does not fit" in note for note in protein.notes)


def mmcif(lines: list[tuple[str, str]], end: str = "#", **columns: str) -> str:
    """Atom lines of PDB as mmCIF, under the given residue names."""
    tags = [
        "group_PDB",
        "id",
        "type_symbol",
        "label_atom_id",
        "label_alt_id",
        "label_comp_id",
        "label_asym_id",
        "label_entity_id",
        "label_seq_id",
        "pdbx_PDB_ins_code",
        "Cartn_x",
        "Cartn_y",
        "Cartn_z",
        "occupancy",
        "B_iso_or_equiv",
        "auth_seq_id",
        "auth_asym_id",
        "pdbx_PDB_model_num",
    ]
    rows = []
    for at, (name, line) in enumerate(lines, start=1):
        row = {
            "group_PDB": line[:6].strip(),
            "id": str(at),
            "type_symbol": line[12:14].strip()[:1],
            "label_atom_id": line[12:16].strip(),
            "label_alt_id": line[16].strip() or ".",
            "label_comp_id": name,
            "label_asym_id": line[21].strip() or "A",
            "label_entity_id": "1",
            "label_seq_id": line[22:26].strip(),
            "pdbx_PDB_ins_code": "?",
            "Cartn_x": line[30:38].strip(),
            "Cartn_y": line[38:46].strip(),
            "Cartn_z": line[46:54].strip(),
            "occupancy": line[54:60].strip(),
            "B_iso_or_equiv": line[60:66].strip(),
            "auth_seq_id": line[22:26].strip(),
            "auth_asym_id": line[21].strip() or "A",
            "pdbx_PDB_model_num": "1",
        } | columns
        rows.append(" ".join(row[tag] for tag in tags))
    head = ["data_made", "#", "loop_", *(f"_atom_site.{tag}" for tag in tags)]
    return text([*head, *rows, *([end] if end else [])])


def cif_of(lines: Iterable[str], end: str = "#", **columns: str) -> str:
    """Atom lines of PDB as mmCIF."""
    return mmcif([(line[17:20], line) for line in lines], end, **columns)


@pytest.mark.parametrize("turn", range(10))
def test_names_of_force_fields_in_mmcif(tmp_path: Path, turn: int) -> None:
    """mmCIF has room for every name."""
    forms = {name: others[turn % len(others)] for name, others in FORMS.items()}
    lines = [(forms.get(name := line[17:20], name), line) for line in LONG]
    protein = protein_of(tmp_path, mmcif(lines), "mmcif")
    assert protein.sequences == protein_of(tmp_path, cif_of(LONG), "mmcif").sequences
    assert "X" not in protein.sequences[0]


@pytest.mark.parametrize(
    ("first", "last"), [("NMET", "CALA"), ("NMET", "CHIE"), ("DMET", "CCYX"), ("NLYP", "CALA")]
)
def test_names_of_a_chains_ends(tmp_path: Path, first: str, last: str) -> None:
    """AMBER marks the ends in four-letter names: no residue is lost, none becomes X."""
    letters = {"NMET": "M", "DMET": "M", "NLYP": "K", "CALA": "A", "CHIE": "H", "CCYX": "C"}
    lines = [
        line[:17] + {"   1": first, "  86": last}.get(line[22:26], line[17:21]) + line[21:]
        for line in SHORT
    ]
    [sequence] = protein_of(tmp_path, text([*lines, TER, END])).sequences
    assert (len(sequence), sequence[0], sequence[-1]) == (86, letters[first], letters[last])


def test_four_letters_in_the_column_of_alternate_locations(tmp_path: Path) -> None:
    """Right-justified names reach into the column before."""
    lines = [line[:16] + "HISD" + line[20:] if line[17:20] == "HIS" else line for line in LONG]
    assert "X" not in protein_of(tmp_path, text([*lines, TER, END])).sequences[0]


def test_chain_names_of_two_letters(tmp_path: Path) -> None:
    """Norleucine in chain UA is not AMBER's leucine at an N-terminus."""
    lines = [line[:20] + "UA" + line[22:] for line in SHORT]
    lines = [line.replace("MET", "NLE") if line[22:26] == "   1" else line for line in lines]
    [chain] = protein_of(tmp_path, text([*lines, TER, END])).chains
    assert (chain.id, chain.sequence[:2], len(chain)) == ("UA", "LI", 86)


def test_whatever_becomes_x_is_counted_and_named(tmp_path: Path) -> None:
    """In a note, not in silence; per chain only the chain's own."""
    lines = [line.replace("GLU", "QQQ") for line in SHORT]
    count = sum(line[12:16] == " CA " and line[17:20] == "QQQ" for line in lines)
    content = text([*lines, TER, *edited(SHORT, chain="B", shift=(60, 0, 0)), TER, END])
    assert protein_of(tmp_path, content).notes == (
        f"{count} residues read as X, of unknown type: QQQ ({count} times)",
    )
    first, second = result_of(tmp_path, content, options=PER_CHAIN).proteins
    assert len(first.notes) == 1
    assert second.notes == ()


def solvent(
    numbers: Iterable[str], name: str = "HOH", chain: str = "A", atom: str = " O  "
) -> list[str]:
    return [
        f"HETATM99999 {atom} {name:<4}{chain}{number:>4}    {i + 50:8.3f}{0:8.3f}{0:8.3f}  1.00"
        for i, number in enumerate(numbers)
    ]


@pytest.mark.parametrize(
    "others",
    [
        solvent(["9998", "9999", "   0", "   1", "   0", "   1"]),
        solvent(["270e", "270f", "2710", "****", "****"]),
        solvent(["9999", "****", "****"], "SOL", "W"),
        solvent(["   1", "   1"], "NA+", "A", "NA  "),
        solvent(["   1", "   1"], "POPC", "A", " N  "),
        solvent(["   1", "****"], "CA", "A", "CA  "),
        solvent(["   7", "   7"], "LIG", "A", " CA "),
        ["HETATM    1  O   HOH W   1    ************************  1.00  0.00"],
        ["HETATM    1  O   HOH W   1       1.000   2.000"],
        ["HETATM    1  O   HOH W   1        1.00    2.00   3.000  0.00                  12345"],
    ],
    ids=[
        "wraps",
        "hexadecimal",
        "stars",
        "ions",
        "lipids",
        "calcium",
        "ligand",
        "coordinates",
        "short",
        "columns",
    ],
)
@pytest.mark.parametrize("record", ["HETATM", "ATOM  "])
def test_what_is_no_protein_never_makes_it_unreadable(
    tmp_path: Path, plain: Callable[[list[str]], Protein], others: list[str], record: str
) -> None:
    """Numbers and coordinates of water, ions, lipids and ligands are not looked at."""
    others = [record + line[6:] for line in others]
    protein = protein_of(tmp_path, text([*SHORT, TER, *others, END]))
    assert_same(protein, plain(SHORT))
    assert_same(protein_of(tmp_path, text([*others, *SHORT, TER, END])), plain(SHORT))


def test_charmm_guis_water_with_numbers_of_five_digits(
    tmp_path: Path, plain: Callable[[list[str]], Protein]
) -> None:
    """TIP3 fills the column after the name, and the number that of the insertion code."""
    water = [
        f"ATOM    700  OH2 TIP3W{number:<5d}   {number / 1000:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00"
        for number in range(9998, 10003)
    ]
    lines = edited(SHORT, segment="PROA")
    assert_same(protein_of(tmp_path, text([*lines, TER, *water, END])), plain(SHORT))


def test_protein_above_9999_residues(tmp_path: Path) -> None:
    """Five digits (CHARMM) and hybrid-36 are the same numbers."""
    five, hybrid = [], []
    for line in SHORT:
        number = int(line[22:26]) + 9950
        five.append(
            f"{line[:22]}{number:<5d}{line[27:]}"
            if number > 9999
            else f"{line[:22]}{number:4d}{line[26:]}"
        )
        code = f"A{'0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ'[0]}{(number - 10000) // 36:X}"
        rest = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(number - 10000) % 36]
        hybrid.append(f"{line[:22]}{code + rest if number > 9999 else number:>4} {line[27:]}")
    one = protein_of(tmp_path, text([*five, TER, END]))
    assert one.chains[0].residue_numbers.tolist() == list(range(9951, 10037))
    assert_same(one, protein_of(tmp_path, text([*hybrid, TER, END])))


@pytest.mark.parametrize("serial", ["*****", "186a0", "     ", "99999"])
def test_serial_numbers_may_be_anything(
    tmp_path: Path, plain: Callable[[list[str]], Protein], serial: str
) -> None:
    """They are not needed."""
    lines = [line[:6] + serial + line[11:] for line in SHORT]
    assert_same(protein_of(tmp_path, text([*lines, TER, END])), plain(SHORT))


@pytest.mark.parametrize(
    "field",
    [
        "31259.30532695.21360413.345",
        "   1_0.0  10.213  10.345",
        "   12345  10.213  10.345",
        "  12.34   10.213  10.345"[:24],
        "-1234.567-2345.678-3456.789",
    ],
)
def test_coordinates_outside_their_columns_are_refused(tmp_path: Path, field: str) -> None:
    """Columns that run together, Python's 1_0, and numbers without a point are no coordinates."""
    lines = [SHORT[0][:30] + field + SHORT[0][30 + len(field) :], *SHORT[1:]]
    if field.startswith("  12.34 "):
        assert protein_of(tmp_path, text([*lines, TER, END])).chains[0].backbone is not None
        return
    assert reason_of(tmp_path, text([*lines, TER, END])).startswith("line 1 has a coordinate")


@pytest.mark.parametrize("shift", [-1, 1, 2])
def test_shifted_coordinates_are_refused(tmp_path: Path, shift: int) -> None:
    """A point that is not in column 35, 43 or 51 means that a field has other columns."""
    lines = [
        line[:30] + " " * shift + line[30:] if shift > 0 else line[:30] + line[30 - shift :]
        for line in SHORT
    ]
    assert "has a coordinate" in reason_of(tmp_path, text([*lines, TER, END]))


@pytest.mark.parametrize("number", ["1_0 ", "1.0 ", " 0x1", "A-00", "aB00"])
def test_residue_numbers_that_only_python_takes(tmp_path: Path, number: str) -> None:
    """They are refused, with the line."""
    lines = [line[:22] + number + line[26:] if line[22:26] == "  10" else line for line in SHORT]
    assert "residue number that is not a number" in reason_of(tmp_path, text([*lines, TER, END]))


def test_models_left_out_are_noted(tmp_path: Path, plain: Callable[[list[str]], Protein]) -> None:
    """An assembly as models: the first is read, and a note says how to read the others."""
    other = edited(SHORT, shift=(35, 0, 0))
    content = text(
        ["MODEL        1", *SHORT, TER, "ENDMDL", "MODEL        2", *other, TER, "ENDMDL", END]
    )
    protein = protein_of(tmp_path, content)
    assert_same(protein, plain(SHORT))
    [note] = protein.notes
    assert note.startswith("the first of its 2 models was read; to read the others, write each")
    cif = cif_of(SHORT).removesuffix("#\n")
    rows = [line for line in cif.splitlines() if line.startswith("ATOM")]
    cif += text([*(row[:-1] + "2" for row in rows), "#"])
    assert protein_of(tmp_path, cif, "mmcif").notes == (note,)


def test_molecules_after_end_are_noted(
    tmp_path: Path, plain: Callable[[list[str]], Protein]
) -> None:
    """Water after END is not worth a note, a protein is."""
    second = edited(LONG, chain="B", shift=(45, 0, 0))
    protein = protein_of(tmp_path, text([*SHORT, END, *second, END]))
    assert_same(protein, plain(SHORT))
    [note] = protein.notes
    assert note.startswith(f"the atoms after its first END were left out ({len(second):,})")
    assert protein_of(tmp_path, text([*SHORT, TER, END, *solvent(["   1"]), END])).notes == ()


def test_second_data_block_is_noted(tmp_path: Path) -> None:
    """By name; a block without atoms before it is passed over."""
    one, two = cif_of(SHORT), cif_of(LONG)
    protein = protein_of(tmp_path, one + two.replace("data_made", "data_second"), "mmcif")
    assert len(protein) == 86
    [note] = protein.notes
    assert note.startswith("the data block made was read and second left out")
    protein = protein_of(tmp_path, "data_global\n_journal.name x\n" + one, "mmcif")
    assert (len(protein), protein.notes) == (86, ())


FAR = (45.0, 0.0, 0.0)
TWO_IN_ONE = {
    "TER": ([*SHORT, TER, *edited(SHORT, number=500, shift=FAR), TER, END], ["A", "A2"]),
    "TER, same numbers": ([*SHORT, TER, *edited(LONG, shift=FAR), TER, END], ["A", "A2"]),
    "TER, no letter": (
        [*edited(SHORT, chain=" "), TER, *edited(LONG, chain=" ", shift=FAR), TER, END],
        ["", "2"],
    ),
    "segments": (
        [*edited(SHORT, segment="P1"), *edited(LONG, segment="P2", shift=FAR), END],
        ["P1", "P2"],
    ),
    "segments, numbers go on": (
        [*edited(SHORT, segment="P1"), *edited(LONG, segment="P2", number=500, shift=FAR), END],
        ["P1", "P2"],
    ),
    "segments, no letter": (
        [
            *edited(SHORT, chain=" ", segment="PROA"),
            *edited(LONG, chain=" ", segment="PROB", shift=FAR),
            END,
        ],
        ["PROA", "PROB"],
    ),
    "segments and TER": (
        [
            *edited(SHORT, chain=" ", segment="PROA"),
            TER,
            *edited(LONG, chain=" ", segment="PROB", shift=FAR),
            TER,
            END,
        ],
        ["PROA", "PROB"],
    ),
    "numbering begins again": (
        [*edited(SHORT, chain=" "), *edited(LONG, chain=" ", shift=FAR), END],
        ["", "2"],
    ),
}


@pytest.mark.parametrize("case", TWO_IN_ONE)
def test_molecules_of_one_chain_letter_are_several_chains(tmp_path: Path, case: str) -> None:
    """Told apart by TER, segment or numbering, with names that the residue map and files have."""
    lines, names = TWO_IN_ONE[case]
    protein = protein_of(tmp_path, text(lines))
    assert protein.structure is not None
    assert [chain.id for chain in protein.structure.chains] == names
    lengths = [86, 86] if case == "TER" else [86, 129]
    assert [len(chain) for chain in protein.structure.chains] == lengths
    [note] = protein.notes
    assert "holds 2 molecules, told apart by TER, segment or numbering: read as chains" in note
    one, two = result_of(tmp_path, text(lines), options=PER_CHAIN).proteins
    assert [one.id, two.id] == [f"entry_{name}" if name else "entry" for name in names]


def test_same_segments_in_one_chain_are_not_looked_at(
    tmp_path: Path, plain: Callable[[list[str]], Protein]
) -> None:
    """Line numbers, identifiers and charges behind column 66 divide nothing, and are no error."""
    for tails in (
        [f"      1VQB{i:4d}" for i in range(len(SHORT))],
        [f"       1SG{i:4d}" for i in range(len(SHORT))],
        [f"      {i:<8d}" for i in range(len(SHORT))],
        ["           N+1"] * len(SHORT),
        ["      A1  C1A-"] * len(SHORT),
        [""] * len(SHORT),
    ):
        lines = [line[:66] + tail for line, tail in zip(SHORT, tails, strict=True)]
        assert_same(protein_of(tmp_path, text([*lines, TER, END])), plain(SHORT))


def test_gap_without_ter_is_one_chain(tmp_path: Path) -> None:
    """Missing residues, and numbers that jump back without being used twice, divide nothing."""
    gap = [line for line in SHORT if not 30 <= int(line[22:26]) < 40]
    fusion = [
        *(line for line in SHORT if int(line[22:26]) < 30),
        *edited((line for line in SHORT if 30 <= int(line[22:26]) < 60), number=1000),
        *(line for line in SHORT if int(line[22:26]) >= 62),
    ]
    for lines in (gap, fusion):
        protein = protein_of(tmp_path, text([*lines, TER, END]))
        assert [chain.id for chain in protein.chains] == ["A"]
        assert protein.notes == ()


@pytest.mark.parametrize(
    "names", [("OT1", "OT2"), ("OC1", "OC2"), ("O1", "O2"), ("OXT",), ("O'", "O''")]
)
def test_oxygens_of_the_last_residue(
    tmp_path: Path, plain: Callable[[list[str]], Protein], names: tuple[str, ...]
) -> None:
    """CHARMM's, GROMACS's, GROMOS's: the last residue has its structure row."""
    lines = []
    for line in SHORT:
        if line[12:16] == " O  " and line[22:26] == "  86":
            lines += [line[:12] + f" {name:<3}" + line[16:] for name in names]
        else:
            lines.append(line)
    assert_same(protein_of(tmp_path, text([*lines, TER, END])), plain(SHORT))
    pairs = [(line[17:20], line) for line in lines]
    cif = mmcif([(n, line) for n, line in pairs if "'" not in line[12:16]])
    if "'" not in names[0]:
        assert len(protein_of(tmp_path, cif, "mmcif").chains[0].structure_rows) == 86


def test_parts_of_residues_at_the_end_of_a_chain(
    tmp_path: Path, plain: Callable[[list[str]], Protein]
) -> None:
    """Atoms that a program has added, and all second conformers behind all first ones."""
    late = [line for line in SHORT if line[12:16] in (" O  ", " CB ")]
    early = [line for line in SHORT if line not in late]
    assert_same(protein_of(tmp_path, text([*early, *late, TER, END])), plain(SHORT))
    first = [f"{line[:16]}A{line[17:54]}  0.60{line[60:]}" for line in SHORT]
    moved = edited(SHORT, shift=(1, 0, 0))
    second = [f"{line[:16]}B{line[17:54]}  0.40{line[60:]}" for line in moved]
    assert_same(protein_of(tmp_path, text([*first, *second, TER, END])), plain(SHORT))


def test_side_chains_oxygen_is_not_the_backbones(tmp_path: Path) -> None:
    """O1 far from C is another atom."""
    lines = [
        line[:12] + " O1 " + f"{line[16:30]}{0:8.3f}{0:8.3f}{0:8.3f}" + line[54:]
        if line[12:16] == " O  " and line[22:26] == "  86"
        else line
        for line in SHORT
    ]
    assert len(protein_of(tmp_path, text([*lines, TER, END])).chains[0].structure_rows) == 85


@pytest.mark.parametrize("ends", ["\r", "\r\n"])
@pytest.mark.parametrize("last", ["", "\x1a"])
def test_line_ends(
    tmp_path: Path, plain: Callable[[list[str]], Protein], ends: str, last: str
) -> None:
    """CR alone, as old Macs wrote it, CRLF, and DOS's Ctrl-Z: PDB and mmCIF."""
    content = text([*SHORT, TER, END])
    assert_same(protein_of(tmp_path, (content.replace("\n", ends) + last).encode()), plain(SHORT))
    cif = cif_of(SHORT)
    one = protein_of(tmp_path, (cif.replace("\n", ends) + last).encode(), "mmcif")
    assert_same(one, plain(SHORT))


@pytest.mark.parametrize("kind", ["pdb", "mmcif"])
@pytest.mark.parametrize("occupancy", [0.6, 0.4])
def test_microheterogeneity_with_a_shared_first_atom(
    tmp_path: Path, plain: Callable[[list[str]], Protein], kind: str, occupancy: float
) -> None:
    """Only some atoms have labels of alternate locations: one residue per place, the likelier.

    The shared N belongs to both.
    """
    lines = []
    at = [line for line in SHORT if line[22:26] == "  50"]
    for line in SHORT:
        if line[22:26] != "  50":
            lines.append(line)
        elif line == at[0]:
            lines.append(line)
            lines += [f"{line[:16]}A{line[17:54]}{occupancy:6.2f}{line[60:]}" for line in at[1:]]
            other = 1 - occupancy
            lines += [f"{line[:16]}BSER{line[20:54]}{other:6.2f}{line[60:]}" for line in at[1:]]
    content = text([*lines, TER, END])
    if kind == "mmcif":
        content = cif_of(lines)
    [chain] = protein_of(tmp_path, content, kind).chains
    whole = plain(SHORT).chains[0].sequence
    assert chain.sequence == whole[:49] + ("D" if occupancy > 0.5 else "S") + whole[50:]
    assert len(chain.structure_rows) == 86


def test_two_residues_at_one_place_without_labels(tmp_path: Path) -> None:
    """The first is taken; neighbours whose insertion codes were lost are both kept."""
    at = [line for line in SHORT if line[22:26] == "  50"]
    where = SHORT.index(at[-1]) + 1
    doubled = [*SHORT[:where], *(line[:17] + "SER" + line[20:] for line in at), *SHORT[where:]]
    assert len(protein_of(tmp_path, text([*doubled, TER, END]))) == 86
    lost = [line[:22] + "  50" + line[26:] if line[22:26] == "  51" else line for line in SHORT]
    assert len(protein_of(tmp_path, text([*lost, TER, END]))) == 86


@pytest.mark.parametrize("length", [7, 8, 9, 40])
@pytest.mark.parametrize(
    "tag", ["label_asym_id", "auth_asym_id", "label_entity_id", "ligand", "atom"]
)
def test_long_names_in_mmcif(
    tmp_path: Path, plain: Callable[[list[str]], Protein], tag: str, length: int
) -> None:
    """Chains, entities, ligands and atoms with names of any length: read, under these names."""
    lines = [(line[17:20], line) for line in SHORT]
    long = "L" * length
    columns = {tag: long} if tag.endswith("_id") else {}
    content = mmcif(lines, "", **columns)
    atom = long if tag == "atom" else "C1"
    ligand = long if tag == "ligand" else "LIG"
    content += f"HETATM 9999 C {atom} . {ligand} Z 2 . ? 1 2 3 1 1 500 Z 1\n#\n"
    [chain] = protein_of(tmp_path, content, "mmcif").chains
    assert chain.sequence == plain(SHORT).sequences[0]
    assert chain.id == (long if tag == "auth_asym_id" else "A")


@pytest.mark.parametrize("end", ["#", "##", "# end of file", "###### ParmEd"])
def test_ends_of_mmcif(tmp_path: Path, plain: Callable[[list[str]], Protein], end: str) -> None:
    """Any comment closes a file of the archive's style."""
    content = cif_of(SHORT, end)
    assert_same(protein_of(tmp_path, content, "mmcif"), plain(SHORT))
    assert "truncated" in reason_of(tmp_path, content.removesuffix(end + "\n"), "mmcif")


SEQUENCE = """loop_
_entity.id
_entity.type
1 polymer
loop_
_struct_asym.id
_struct_asym.entity_id
A 1
"""


def cut_cif(rows: int, before: str) -> str:
    """An mmCIF without "#" marks whose last rows are missing."""
    content = mmcif([(line[17:20], line) for line in SHORT[:rows]], "").replace("#\n", "")
    return content.replace("loop_\n_atom", before + "loop_\n_atom")


def test_cut_between_rows_of_mmcif_without_marks(tmp_path: Path) -> None:
    """A note if nothing tells, none if the sequence's end is there.

    A table of observed residues tells that some are missing: refused.
    """
    numbers = range(1, 87)
    names = [line[17:20] for line in SHORT if line[12:16] == " CA "]
    tags = text(["loop_", *(f"_entity_poly_seq.{t}" for t in ("entity_id", "num", "mon_id"))])
    sequence = SEQUENCE + tags + text(f"1 {n} {m}" for n, m in zip(numbers, names, strict=True))
    tags = text(
        ["loop_", *(f"_pdbx_poly_seq_scheme.{t}" for t in ("asym_id", "seq_id", "pdb_mon_id"))]
    )
    scheme = tags + text(f"A {n} {m}" for n, m in zip(numbers, names, strict=True))
    for before in ("", SEQUENCE, sequence):
        protein = protein_of(tmp_path, cut_cif(200, before), "mmcif")
        [note] = protein.notes
        assert note.startswith("nothing marks the end of its atoms")
    assert "it is truncated" in reason_of(tmp_path, cut_cif(200, scheme), "mmcif")
    for before in (sequence, scheme):
        protein = protein_of(tmp_path, cut_cif(len(SHORT), before), "mmcif")
        assert (len(protein), protein.notes) == (86, ())


def test_pdb_without_any_end_is_noted(tmp_path: Path) -> None:
    """A cut between two lines cannot be seen either."""
    [note] = protein_of(tmp_path, text(SHORT[:200])).notes
    assert note.startswith("nothing marks the end of its atoms")
    assert protein_of(tmp_path, text([*SHORT, TER])).notes == ()
    assert protein_of(tmp_path, text([*SHORT, *solvent(["   1"])])).notes == ()


@pytest.mark.parametrize("number", ["99999999999999", "-99999999999", "4294967297"])
def test_residue_numbers_that_do_not_fit(tmp_path: Path, number: str) -> None:
    """gemmi would read another number; a ligand's does not matter."""
    lines = [(line[17:20], line) for line in SHORT]
    content = mmcif(lines).replace(" 86 A 1\n", f" {number} A 1\n")
    assert number in reason_of(tmp_path, content, "mmcif")
    ligand = f"HETATM 9999 C C1 . LIG Z 2 . ? 1 2 3 1 1 {number} Z 1\n#\n"
    assert len(protein_of(tmp_path, mmcif(lines, "") + ligand, "mmcif")) == 86


@pytest.mark.parametrize("missing", ["?", "."])
@pytest.mark.parametrize("kind", ["mmcif", "bcif"])
def test_authors_residue_numbers_that_are_missing(tmp_path: Path, missing: str, kind: str) -> None:
    """Of all residues: label_seq_id counts; of some: gemmi would make a residue of its own."""

    def content(text: str) -> str | bytes:
        return text if kind == "mmcif" else as_bcif(text, tmp_path)

    whole = cif_of(SHORT)
    plain = protein_of(tmp_path, content(whole), kind).chains[0]
    without = content(cif_of(SHORT, auth_seq_id=missing))
    chain = protein_of(tmp_path, without, kind).chains[0]
    assert chain.sequence == plain.sequence
    assert chain.residue_numbers.tolist() == plain.residue_numbers.tolist()
    some = content(whole.replace(" 86 A 1\n", f" {missing} A 1\n", 1))
    assert reason_of(tmp_path, some, kind).endswith("has no residue number")
    neither = content(cif_of(SHORT, auth_seq_id=missing, label_seq_id=missing))
    assert reason_of(tmp_path, neither, kind).endswith("has no residue number")


@pytest.mark.parametrize("bad", ["x", "1.5", "1_0", "12A"])
def test_odd_numbers_of_ligands_in_mmcif(tmp_path: Path, bad: str) -> None:
    """What is no protein is dropped if gemmi cannot read it."""
    lines = [(line[17:20], line) for line in SHORT]
    ligand = f"HETATM 9999 C C1 . LIG Z 2 . ? 1 2 3 1 1 {bad} Z 1\n#\n"
    assert len(protein_of(tmp_path, mmcif(lines, "") + ligand, "mmcif")) == 86


@pytest.mark.parametrize("value", ["1e30", "-1e6", "123456.7"])
def test_coordinates_that_cannot_be(tmp_path: Path, value: str) -> None:
    """More than 100,000 Å is no protein."""
    content = cif_of(SHORT).replace(SHORT[0][30:38].strip(), value)
    assert "exceed 100,000 Å" in reason_of(tmp_path, content, "mmcif")


def test_polymers_of_one_authors_chain_in_mmcif(tmp_path: Path) -> None:
    """Two polymers that differ in label_asym_id only are two chains, in written files as well."""
    one = cif_of(SHORT, "")
    two = cif_of(edited(LONG, shift=FAR), "", label_asym_id="B")
    content = one + text(line for line in two.splitlines() if line.startswith("ATOM")) + "#\n"
    protein = protein_of(tmp_path, content, "mmcif")
    assert [(chain.id, len(chain)) for chain in protein.chains] == [("A", 86), ("B", 129)]
    written = write_with_b_factors(content.encode(), "mmcif", {("B", 1, " "): 7.0}, tmp_path / "b")
    factors = read_b_factors(written)
    assert factors["B", 1, " "] == 7
    assert factors["A", 1, " "] == 0


def test_sequence_that_gemmi_cannot_take(tmp_path: Path) -> None:
    """A damaged entity sequence is one line for the file, not an end of all."""
    content = gzip.decompress((CASES / "3jqh-sequence.cif.gz").read_bytes())
    result = result_of(tmp_path, content, "mmcif", DEPOSITED)
    assert len(result.failures) + len(result.proteins) == 1


@pytest.mark.parametrize(
    "name", ["HID", "HSP", "CYX", "ASH", "LYN", "NMET", "CALA", "NHIE", "DHSD"]
)
def test_names_without_a_backbone(name: str) -> None:
    """A residue of side-chain atoms alone is known by its name."""
    assert residue_letter(name) in "HCDKMA"


def test_every_case_from_outside_is_its_plain_file(shared: Path, tmp_path: Path) -> None:
    """The reported files themselves, where they are at hand."""
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    for case in ("01", "02", "03", "04", "05", "16", "17", "19", "28", "29"):
        [at] = folder.glob(f"{case}-*")
        plain = protein_of(tmp_path, (at / "plain.pdb").read_bytes())
        for path in at.iterdir():
            kind = "mmcif" if path.suffix == ".cif" else "pdb"
            assert_same(protein_of(tmp_path, path.read_bytes(), kind), plain)


def test_b_factors_are_written_into_the_text(tmp_path: Path) -> None:
    """Everything else stays, line by line."""
    content = text(["REMARK", *SHORT, TER, *solvent(["   1", "****"]), END])
    path = write_with_b_factors(content.encode(), "pdb", {("A", 2, " "): 3.5}, tmp_path / "b")
    before, after = content.splitlines(), path.read_text().splitlines()
    assert [line[:60] + line[66:] for line in after] == [line[:60] + line[66:] for line in before]
    values = {line[17:27]: line[60:66] for line in after if line.startswith(("ATOM", "HETATM"))}
    assert {value for key, value in values.items() if key != "ILE A   2 "} == {"  0.00"}
    assert values["ILE A   2 "] == "  3.50"
