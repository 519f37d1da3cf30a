"""What benchmarks/gpu.py measures, stage by stage; `pytest -m gpu` holds the same experiments to what must be."""
