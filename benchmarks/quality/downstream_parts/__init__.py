"""What benchmarks/quality/downstream.py is made of."""
