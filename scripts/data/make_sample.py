"""Make examples/sample out of a folder of {id}.pdb.gz files.

    python scripts/data/make_sample.py RAW examples/sample

Every file is rewritten with the same bytes on every run (gzip without a time or a name); those
named in ``AS_CIF`` are written as mmCIF by gemmi instead, so that the sample holds both formats.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import gemmi

#: One member of most families, and singletons; True: gzipped.
AS_CIF = {
    "110l_A": False,
    "1bao_B": False,
    "1bpi_A": False,
    "1e6m_A": False,
    "1ey5_A": True,
    "1flu_A": False,
    "1fkb_A": False,
    "1gay_A": True,
    "1vqg_A": False,
}


def as_mmcif(pdb: str, name: str) -> str:
    """Return the PDB text as a small mmCIF document: entities, and every atom."""
    structure = gemmi.read_pdb_string(pdb)
    structure.name = name
    structure.setup_entities()
    groups = gemmi.MmcifOutputGroups(False)
    groups.block_name = groups.entry = groups.cell = groups.symmetry = True
    groups.entity = groups.entity_poly = groups.struct_asym = True
    groups.atoms = groups.group_pdb = True
    return structure.make_mmcif_document(groups).as_string()


def write(path: Path, text: str) -> None:
    """Write ``text``, gzipped if the name ends in .gz, always to the same bytes."""
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def main(raw: Path, out: Path) -> None:
    """Write one file for each ``raw/{id}.pdb.gz``."""
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted(raw.glob("*.pdb.gz")):
        name = source.name.removesuffix(".pdb.gz")
        text = gzip.decompress(source.read_bytes()).decode()
        if name in AS_CIF:
            suffix = ".cif.gz" if AS_CIF[name] else ".cif"
            write(out / f"{name}{suffix}", as_mmcif(text, name))
        else:
            write(out / f"{name}.pdb.gz", text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
