"""Vectors and residues to retrieval figures with intervals.

``protalign.evaluate`` measures a model, ``retrieval_report`` without baselines, and
``remote_homology`` scores of any origin.
"""

from protalign.evaluation.remote import remote_homology
from protalign.evaluation.summary import retrieval_report

__all__ = ["remote_homology", "retrieval_report"]
