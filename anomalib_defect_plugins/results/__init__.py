"""The schema of a results folder: written by the benchmark, read by the report and the demo."""
