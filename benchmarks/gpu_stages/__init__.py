"""The stages that benchmarks/gpu.py measures; `pytest -m gpu` checks the results of the same experiments."""
