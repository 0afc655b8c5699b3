"""Residues against residues: log-likelihood ratios of residue pairs, and alignments by them."""

from protalign.residues.alignment import Alignment, align
from protalign.residues.cca import PairSums
from protalign.residues.stage import ResidueStage

__all__ = ["Alignment", "PairSums", "ResidueStage", "align"]
