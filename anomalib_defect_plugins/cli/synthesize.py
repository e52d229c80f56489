"""``anomalib-defects synthesize``: write a data set of synthetic defects, made by a trained model."""

import argparse
import sys
from pathlib import Path

from anomalib_defect_plugins.cli.datamodules import find_datamodule, set_up
from anomalib_defect_plugins.cli.tables import print_table


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Put defects on normal training images with a trained model that synthesizes defects, and write images, masks "
        "and a table in the layout of DefectFolder. An interrupted run is resumed; a greater --num adds images."
    )
    command = commands.add_parser(
        "synthesize",
        help="make a data set of synthetic defects",
        description=about,
        usage="anomalib-defects synthesize --ckpt MODEL.ckpt --data NAME --out DIR [--num N] [--category TYPE] "
        "[--region MASK.png] [--seed S] [--threshold T] [--max-share P] [--restored] [--keep-all] "
        "[--report EXTRACTOR] "
        "[options of the data module]",
        epilog="Options of the data module are those of anomalib: --data.root R, or --root R if it is none of the "
        "above. 'anomalib train --data.help NAME' lists them.",
        allow_abbrev=False,
    )
    _add_options(command)
    command.set_defaults(run=_run, rest=[])


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a trained model that makes defects")
    command.add_argument("--data", metavar="NAME", required=True, help="data module with the normal images")
    command.add_argument("--out", type=Path, required=True, help="folder to write to: new, empty, or of an earlier run")
    command.add_argument("--num", type=int, default=500, help="number of images; default: 500")
    command.add_argument(
        "--category",
        help="defect type, or several joined by '+'; as-trained: the sets of types of the training images, as often as "
        "there; default: each type in turn",
    )
    command.add_argument("--region", type=Path, help="image that is black where no defect may be; default: anywhere")
    command.add_argument(
        "--seed", type=int, default=0, help="random seed: image i depends only on it and i; default: 0"
    )
    command.add_argument(
        "--threshold",
        type=_number_or_word,
        default=0.5,
        metavar="NUMBER|otsu",
        help="threshold of the map for the mask; otsu: computed for each map; default: 0.5",
    )
    command.add_argument(
        "--max-share",
        type=float,
        default=0.5,
        help="maximum fraction of an image that a defect may cover, otherwise it is drawn again; default: 0.5",
    )
    command.add_argument("--restored", action="store_true", help="also keep the images with the defect removed again")
    command.add_argument(
        "--keep-all",
        action="store_true",
        help="keep every image, also if its defect is not visible or too large; such images have no mask",
    )
    command.add_argument(
        "--report",
        metavar="EXTRACTOR",
        help="write a report on their quality, by the features of inception or a timm model",
    )


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _run(options: argparse.Namespace) -> int:
    cls = find_datamodule(options.data)
    from anomalib_defect_plugins.metrics.features import make_extractor
    from anomalib_defect_plugins.synthesis.quality_report import write_quality_report
    from anomalib_defect_plugins.synthesis.synthesizer import SynthesisRequest, summary_table, synthesize

    names = ("num", "category", "region", "seed", "threshold", "max_share", "restored", "keep_all")
    request = SynthesisRequest(**{name: getattr(options, name) for name in names})
    extractor = make_extractor(options.report) if options.report else None  # fails before hours of synthesis
    datamodule = set_up(cls, options.data, options.rest, options.seed)
    print_table(summary_table(synthesize(options.ckpt, datamodule, options.out, request)))
    sys.stdout.write(f"data set: {options.out}\n")
    if extractor:
        path = write_quality_report({"synthetic": options.out}, datamodule, options.out / "_report", extractor)
        sys.stdout.write(f"report: {path}\n")
    return 0
