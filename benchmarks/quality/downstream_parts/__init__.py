"""The parts of benchmarks/quality/downstream.py."""
