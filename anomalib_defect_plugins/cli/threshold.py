"""``anomalib-defects threshold``: choose the threshold of a trained model by misses, false alarms or cost."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_defect_plugins.core.errors import InvalidInputError

if TYPE_CHECKING:
    from anomalib_defect_plugins.inference.choose_threshold import Rule

IN_PLACE = Path()
"""Value of ``--write`` without a file."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Choose the threshold of a checkpoint or an exported graph on images whose labels are known, by the rate of "
        "misses or of false alarms, or by their cost, and state both rates with exact intervals. Nothing is trained."
    )
    command = commands.add_parser(
        "threshold", help="choose the threshold of a trained model", description=about, allow_abbrev=False
    )
    command.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="checkpoint (.ckpt), graph (model.xml, model.onnx) or folder of 'anomalib-defects export'",
    )
    command.add_argument(
        "images",
        metavar="IMAGES",
        type=Path,
        nargs="?",
        help="folder with the subfolder good, and a subfolder for each type of defect, as in MVTec's test folders",
    )
    for name, what in (("good", "good"), ("bad", "defective")):
        command.add_argument(
            f"--{name}", metavar="DIR", type=Path, action="append", default=[], help=f"{what} images; may be repeated"
        )
    _add_rules(command)
    command.add_argument(
        "--pixel", action="store_true", help="threshold of pixels: an image is defective if it has a region of them"
    )
    command.add_argument("--min-area", metavar="N", type=float, help="minimum area of a defect; implies --pixel")
    command.add_argument("--mm-per-pixel", metavar="S", type=float, help="scale of the images; --min-area is in mm²")
    command.add_argument(
        "--write",
        metavar="FILE",
        type=Path,
        nargs="?",
        const=IN_PLACE,
        help="write the threshold into MODEL, or a copy; that of an exported folder is always a copy",
    )
    command.add_argument("--out", metavar="DIR", type=Path, default=Path("threshold"), help="folder of the results")
    command.add_argument("--model", metavar="NAME", dest="model_name", help="model of a checkpoint, such as Padim")
    command.add_argument(
        "--precision", choices=("f32", "bf16", "f16"), default="f32", help="precision of a graph; default: f32"
    )
    command.set_defaults(run=_run)


def _add_rules(command: argparse.ArgumentParser) -> None:
    rules = command.add_argument_group("rule, exactly one")
    rules.add_argument("--max-misses", metavar="P", type=float, help="maximum rate of missed defects, such as 0.01")
    rules.add_argument("--max-false-alarms", metavar="P", type=float, help="maximum rate of false alarms")
    rules.add_argument("--cost-miss", metavar="C", type=float, help="cost of a missed defect")
    rules.add_argument("--cost-false-alarm", metavar="C", type=float, help="cost of a false alarm, in the same unit")
    rules.add_argument("--defect-rate", metavar="P", type=float, help="rate of defective parts in production")
    rules.add_argument("--at", metavar="T", type=float, help="do not choose, but evaluate the threshold T")
    rules.add_argument("--confidence", type=float, default=0.95, help="of intervals and limits; default: 0.95")


def _run(options: argparse.Namespace) -> int:
    rule, min_area = _rule(options), _min_area(options)
    from anomalib_defect_plugins.inference.choose_threshold import Choice, choose, summary, write_choice, write_model
    from anomalib_defect_plugins.inference.labelled_images import labelled_images
    from anomalib_defect_plugins.inference.scoring import load_scorer, score_images

    if options.images is None and not (options.good or options.bad):
        msg = "no images; pass a folder with the subfolder good, or --good and --bad"
        raise InvalidInputError(msg)
    good, bad = labelled_images(options.images, options.good, options.bad)
    scorer = load_scorer(options.model, options.model_name, options.precision)
    images = [*good, *bad]
    pixel = options.pixel or options.min_area is not None
    scores, are_maxima = score_images(scorer, [image.path for image in images], pixel, min_area)
    choice = Choice(rule, choose(rule, images, scores), scorer.units, images, scores, pixel, min_area)
    write_choice(choice, options.out)
    sys.stdout.write(summary(choice))
    if options.write is not None:
        out = options.model if options.write == IN_PLACE else options.write
        from anomalib_defect_plugins.deployment.operating_point import write_bundle
        from anomalib_defect_plugins.inference.bundle import read_metadata

        is_bundle = options.model.is_dir() or (options.model.suffix == ".xml" and read_metadata(options.model))
        write = write_bundle if is_bundle else write_model
        sys.stdout.write(f"{write(options.model, out, scorer, choice, are_maxima, options.precision)}\n")
    sys.stdout.write(f"record, scores, histogram: {options.out}\n")
    return 0


def _rule(options: argparse.Namespace) -> "Rule":
    from anomalib_defect_plugins.core.operating_points import Costs, check_share
    from anomalib_defect_plugins.inference.choose_threshold import Rule

    costs = [options.cost_miss, options.cost_false_alarm, options.defect_rate]
    has_costs = any(cost is not None for cost in costs)
    given = [options.max_misses is not None, options.max_false_alarms is not None, options.at is not None, has_costs]
    if sum(given) != 1:
        msg = (
            f"{'no rule' if not sum(given) else 'several rules'}; pass one of --max-misses, --max-false-alarms, --at, "
            "or the costs --cost-miss, --cost-false-alarm and --defect-rate"
        )
        raise InvalidInputError(msg)
    if has_costs and None in costs:
        msg = "a cost is missing; pass all of --cost-miss, --cost-false-alarm and --defect-rate"
        raise InvalidInputError(msg)
    for name in ("max_misses", "max_false_alarms", "confidence"):
        if (share := getattr(options, name)) is not None:
            check_share(f"--{name.replace('_', '-')}", share)
    if options.at is not None and not math.isfinite(options.at):
        msg = f"--at is {options.at}; it must be a finite number"
        raise InvalidInputError(msg)
    found = Costs(*costs) if has_costs else None
    return Rule(options.max_misses, options.max_false_alarms, found, options.at, options.confidence)


def _min_area(options: argparse.Namespace) -> int:
    """Return the minimum area of a defect in pixels of the image."""
    for name in ("min_area", "mm_per_pixel"):
        number = getattr(options, name)
        if number is not None and not (math.isfinite(number) and number > 0):
            msg = f"--{name.replace('_', '-')} is {number}; it must be above 0"
            raise InvalidInputError(msg)
    if options.min_area is None:
        if options.mm_per_pixel is not None:
            msg = "--mm-per-pixel is the scale of --min-area; pass both"
            raise InvalidInputError(msg)
        return 1
    area: float = options.min_area / (options.mm_per_pixel or 1) ** 2
    return max(1, math.ceil(area))
