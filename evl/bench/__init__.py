"""What a training step costs on this machine, part by part, beside the plain twin: ``evl bench``."""

from evl.bench.run import SIZES, BenchSize, find_size, run_bench

__all__ = ["SIZES", "BenchSize", "find_size", "run_bench"]
