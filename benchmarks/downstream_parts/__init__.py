"""What benchmarks/downstream.py is made of."""
