"""``evl bench``: measures the parts of a training step on this machine, and compares the decoder with its twin."""

from evl.bench.run import SIZES, BenchSize, find_size, run_bench

__all__ = ["SIZES", "BenchSize", "find_size", "run_bench"]
