"""``anomalib-defects demo``: show results and try models in the browser."""

import argparse
import os
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Serve a web page with benchmark results and the images behind them, and tabs to inspect your own images with "
        "a trained model, to train a model on a single photo, and to synthesize defects. It needs no network."
    )
    command = commands.add_parser("demo", help="show results and try models in the browser", description=about)
    # A Hugging Face Space sets these variables; the default host accepts connections from this machine only.
    host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), os.environ.get("GRADIO_SERVER_PORT")
    command.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="results folder, or folder of results folders; default: results",
    )
    command.add_argument("--port", type=int, default=port, help="port; default: the first free one from 7860 on")
    command.add_argument(
        "--host", default=host, help=f"address to listen on, 0.0.0.0 for all networks; default: {host}"
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        from anomalib_defect_plugins.demo.app import launch
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        msg = "the demo needs Gradio; pip install 'anomalib-defect-plugins[demo]'"
        raise InvalidInputError(msg) from error
    return launch(options)
