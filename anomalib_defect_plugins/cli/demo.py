"""The command ``anomalib-defects demo``."""

import argparse
import os
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    about = (
        "Show a page in the browser: benchmark results and the images behind them, a place to inspect images of your "
        "own with a trained model, one to train from a single photo, and one to make defects. It needs no network."
    )
    command = commands.add_parser("demo", help="show results and try models in the browser", description=about)
    add_options(command)
    command.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo to a parser."""
    # A Space sets these variables; elsewhere, only this machine sees the page.
    host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), os.environ.get("GRADIO_SERVER_PORT")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="what to show; the folder results"
    )
    parser.add_argument("--port", type=int, default=port, help="the first free one from 7860 on")
    parser.add_argument("--host", default=host, help=f"0.0.0.0 shows it to other machines too; {host}")


def run(options: argparse.Namespace) -> int:
    """Show the page until the program is stopped.

    Raises:
        InvalidInputError: Gradio is not installed, or the options cannot be.
    """
    from anomalib_defect_plugins.cli.telemetry import disable_telemetry

    disable_telemetry()
    try:
        from anomalib_defect_plugins.demo.app import launch
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        from anomalib_defect_plugins.core.errors import InvalidInputError

        msg = "the demo needs Gradio; pip install 'anomalib-defect-plugins[demo]'"
        raise InvalidInputError(msg) from error
    return launch(options)
