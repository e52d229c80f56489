"""The ``anomalib-defects`` command: one module a subcommand, each with ``add_parser``."""
