"""TODO anomalib_defect_plugins/cli/inspect.py."""

import argparse
import sys
import time
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.inference.inspect_folder import RUNNERS, inspect


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to ``anomalib-defects``."""
    about = (
        "Look at all images of a folder, or of a list, with a model that 'anomalib export --export_type openvino' has "
        "written. The table has a row for each image, in order: path, score, verdict (1: defective), width, height, "
        "seconds, error. A run that was stopped goes on where it was when it is started again."
    )
    command = commands.add_parser(
        "inspect", help="look at many images with an exported model", description=about, allow_abbrev=False
    )
    command.add_argument("model", metavar="MODEL.xml", type=Path, help="OpenVINO graph of a model")
    command.add_argument(
        "images",
        metavar="FOLDER_OR_LIST",
        type=Path,
        help="folder, searched with all its subfolders in sorted order; or text file with the path of an image a line",
    )
    command.add_argument("--out", metavar="FILE.parquet", type=Path, required=True, help="the table; must not exist")
    command.add_argument("--maps", metavar="DIR", type=Path, help="folder for anomaly maps: PNG, named by row")
    command.add_argument("--threshold", type=float, help="score above which an image is defective; the model's own")
    command.add_argument("--batch", type=int, default=1, help="images given to the model at once")
    command.add_argument(
        "--precision", choices=("f32", "bf16", "f16"), help="precision to compute in; OpenVINO's choice"
    )
    command.add_argument("--runner", choices=RUNNERS, default="local", help="where the work is done")
    command.add_argument("--address", help="of the Ray cluster; without it, Ray starts on this machine")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from anomalib_defect_plugins.inference.openvino import Settings

    maps = options.maps and options.maps.absolute()
    settings = Settings(options.threshold, options.batch, options.precision, maps)
    if options.address and options.runner != "ray":
        msg = f"--address {options.address} is that of a Ray cluster; add --runner ray"
        raise InvalidInputError(msg)
    start = time.perf_counter()
    counts = inspect(options.model, options.images, options.out, settings, options.runner, options.address)
    rate = counts["inspected"] / (time.perf_counter() - start)
    earlier = counts["images"] - counts["inspected"]
    found = f"{counts['images']} images, {counts['defective']} defective, {counts['error']} with an error"
    before = f" ({earlier} of them earlier)" if earlier else ""
    sys.stdout.write(f"{found}{before}; {rate:.1f} images a second\ntable: {options.out}\n")
    return 0
