"""Vectors to retrieval figures with intervals: ``protalign.evaluate`` and ``retrieval_report``."""

from protalign.evaluation.summary import retrieval_report

__all__ = ["retrieval_report"]
