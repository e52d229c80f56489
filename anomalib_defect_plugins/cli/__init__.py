"""The ``anomalib-defects`` command: one module per subcommand, each with ``add_parser``."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see :func:`~anomalib_defect_plugins.cli.command.run`."""
    from anomalib_defect_plugins.cli.command import run

    return run(arguments)
