"""``anomalib-defects export``: a bundle with a graph that is checked against PyTorch."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_defect_plugins.cli.datamodules import find_datamodule, set_up
from anomalib_defect_plugins.cli.tables import print_table
from anomalib_defect_plugins.core.text import counted

if TYPE_CHECKING:
    from rich.table import Table

    from anomalib_defect_plugins.deployment.agreement import Agreement


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Export a trained model to a folder with graphs for OpenVINO and ONNX Runtime that take 8-bit images of any "
        "size, a description and a model card. The graph is compared with PyTorch on test images, and refused if "
        "verdicts or AUROC suffer."
    )
    command = commands.add_parser(
        "export",
        help="export a trained model, checked against PyTorch",
        description=about,
        usage="anomalib-defects export --ckpt MODEL.ckpt --data NAME --out DIR [--model NAME] "
        "[--precision FP32|FP16|INT8|auto] [--max-auroc-drop A] [--max-changed-verdicts P] [--images N] "
        "[--calibration-images N] [--size H W] [options of the data module]",
        epilog="Options of the data module are those of anomalib: --data.root R, or --root R if it is none of the "
        "above. 'anomalib train --data.help NAME' lists them.",
        allow_abbrev=False,
    )
    _add_options(command)
    command.set_defaults(run=_run, rest=[])


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a trained model")
    command.add_argument("--data", metavar="NAME", required=True, help="data module with the images for the checks")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    command.add_argument(
        "--model", metavar="NAME", help="name of the model; default: that in the checkpoint or its path"
    )
    command.add_argument(
        "--precision",
        choices=("FP32", "FP16", "INT8", "auto"),
        default="FP32",
        help="precision of the weights; auto: the first of INT8, FP16 and FP32 that keeps the bounds; default: FP32",
    )
    command.add_argument(
        "--max-auroc-drop", type=float, default=0.01, metavar="A", help="maximum decrease of the AUROC; default: 0.01"
    )
    command.add_argument(
        "--max-changed-verdicts",
        type=float,
        default=0.02,
        metavar="P",
        help="maximum share of images with another verdict, in [0, 1]; default: 0.02",
    )
    command.add_argument(
        "--images", type=int, default=200, metavar="N", help="maximum test images for the comparison; default: 200"
    )
    command.add_argument(
        "--calibration-images",
        type=int,
        default=300,
        metavar="N",
        help="training images that INT8 is calibrated with, mirrored if there are fewer; default: 300",
    )
    command.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="height and width of the images; default: any"
    )


def _run(options: argparse.Namespace) -> int:
    cls = find_datamodule(options.data)
    from anomalib_defect_plugins.deployment.agreement import Bounds
    from anomalib_defect_plugins.deployment.exporter import ExportSettings, check_settings, export_bundle
    from anomalib_defect_plugins.deployment.metadata import count_trained_tests
    from anomalib_defect_plugins.deployment.quiet import quiet
    from anomalib_defect_plugins.inference.scoring import load_module

    bounds = Bounds(options.max_auroc_drop, options.max_changed_verdicts)
    size = options.size and tuple(options.size)
    settings = ExportSettings(options.precision, bounds, options.images, options.calibration_images, size)
    check_settings(settings, options.out)
    with _steps() as step:
        step("loading")
        with quiet():
            model = load_module(options.ckpt, options.model)
        datamodule = set_up(cls, options.data, options.rest)
        if trained := count_trained_tests(datamodule, options.ckpt):
            sys.stderr.write(
                f"{trained} of {counted(len(datamodule.test_data), 'test image')} of {options.data} were trained on: "
                "the AUROC is too high; pass the data module and options of the training, which its config.yaml has\n"
            )
        export = export_bundle(model, datamodule, options.out, settings, options.ckpt, step)
    print_table(_table(export.tried))
    sys.stdout.write(f"bundle: {export.folder} ({export.tried[-1].precision})\n")
    return 0


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """Show the current step on a terminal, and a line for each step elsewhere: some take minutes."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: console.print(f"{text} ...", highlight=False, soft_wrap=True)
        return
    with console.status("") as status:
        yield lambda text: status.update(f"{text} ...")


def _table(tried: "Sequence[Agreement]") -> "Table":
    from rich.table import Table

    table = Table(
        "precision", "images", "score difference", "map difference", "changed verdicts", "AUROC", "in PyTorch"
    )
    for row in tried:
        values = (row.score_difference, row.map_difference, row.changed_verdicts, row.auroc, row.torch_auroc)
        table.add_row(row.precision, str(row.images), *("" if value is None else f"{value:.4g}" for value in values))
    return table
