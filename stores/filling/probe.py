"""A small protein that every encoder can embed: it tells an encoder's fault from an item's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from protalign.core.protein import Backbone, Chain, Structure

#: Common residues, as in a helix of any protein.
SEQUENCE = "SAEDLLKTLGNRIAAK"
#: N, CA, C and O of an alpha helix by radius (Å), angle (degrees) and height (Å). Each residue is
#: turned by 100 degrees against the one before it, and lies 1.5 Å higher.
_HELIX = ((1.55, 0.0, 0.0), (2.29, 28.4, 0.88), (1.68, 54.6, 1.93), (2.02, 51.4, 3.12))


def probe(modality: str) -> tuple[str, ...] | Structure:
    """Return a small item of a modality; its embedding has a row for each letter of SEQUENCE."""
    if modality == "sequence":
        return (SEQUENCE,)
    residue = np.arange(len(SEQUENCE))[:, None]
    radius, angle, height = np.array(_HELIX).T
    turned = np.radians(angle + 100 * residue)
    coordinates = np.stack(
        [radius * np.cos(turned), radius * np.sin(turned), height + 1.5 * residue], axis=-1
    )
    chain = Chain.from_sequence(SEQUENCE, id="A")
    backbone = Backbone(coordinates.astype(np.float32))
    return Structure((replace(chain, backbone=backbone),), kept=(0,))
