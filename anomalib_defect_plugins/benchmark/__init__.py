"""Benchmarks of models on data sets, with several kinds of supervision and seeds."""
