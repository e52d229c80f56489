"""``anomalib-defects synthesize``: a labelled data set of synthetic defects, made by a trained Defect-GAN."""

import argparse
import sys
from pathlib import Path

from anomalib_defect_plugins.cli.datamodules import find_datamodule, print_table, set_up


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    about = (
        "Put defects on normal training images with a trained Defect-GAN, and write images, masks and a table in the "
        "layout of DefectFolder. A run that was stopped goes on where it was; a greater --num adds images."
    )
    command = commands.add_parser(
        "synthesize",
        help="make a data set of synthetic defects",
        description=about,
        usage="anomalib-defects synthesize --ckpt MODEL.ckpt --data NAME --out DIR [--num N] [--category TYPE] "
        "[--region MASK.png] [--seed S] [--threshold T] [--max-share P] [--restored] [--report EXTRACTOR] "
        "[options of the data module]",
        epilog="Options of the data module are given as for anomalib: --data.root R, or --root R where it is none of "
        "the above. 'anomalib train --data.help NAME' lists them.",
        allow_abbrev=False,
    )
    command.add_argument("--ckpt", type=Path, required=True, help="checkpoint of a trained DefectGan")
    command.add_argument("--data", metavar="NAME", required=True, help="data module that gives the normal images")
    command.add_argument("--out", type=Path, required=True, help="folder to write to: new, empty, or begun before")
    command.add_argument("--num", type=int, default=500, help="number of images")
    command.add_argument("--category", help="type of the defects, or several joined by '+'; each in turn by default")
    command.add_argument("--region", type=Path, help="image, black where no defect is wanted; anywhere by default")
    command.add_argument("--seed", type=int, default=0, help="image i depends on it and on i alone")
    command.add_argument(
        "--threshold",
        type=_number_or_word,
        default=0.5,
        metavar="NUMBER|otsu",
        help="the map above it is defect in the mask; otsu: of each map its own",
    )
    command.add_argument(
        "--max-share", type=float, default=0.5, help="images with a defect on more of them than this are drawn anew"
    )
    command.add_argument("--restored", action="store_true", help="keep the images with the defect taken away too")
    command.add_argument(
        "--report", metavar="EXTRACTOR", help="write how real they are, by the features of inception or a timm model"
    )
    command.set_defaults(run=_run, rest=[])


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _run(options: argparse.Namespace) -> int:
    cls = find_datamodule(options.data)
    from anomalib_defect_plugins.metrics.features import make_extractor
    from anomalib_defect_plugins.synthesis.synthesizer import Request, summary_table, synthesize

    names = ("num", "category", "region", "seed", "threshold", "max_share", "restored")
    request = Request(**{name: getattr(options, name) for name in names})
    extractor = make_extractor(options.report) if options.report else None  # before hours are spent on images
    datamodule = set_up(cls, options.data, options.rest, options.seed)
    print_table(summary_table(synthesize(options.ckpt, datamodule, options.out, request)))
    sys.stdout.write(f"data set: {options.out}\n")
    if extractor:
        from anomalib_defect_plugins.synthesis.quality_report import report

        written = report({"synthetic": options.out}, datamodule, options.out / "_report", extractor)
        sys.stdout.write(f"report: {written}\n")
    return 0
