"""Benchmarks: many models, data sets, kinds of supervision and seeds, run, measured and reported."""
