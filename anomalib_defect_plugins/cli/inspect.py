"""``anomalib-defects inspect``: inspect many images with an exported model."""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.inference.inspect_folder import RUNNERS, inspect_images


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Inspect all images of a folder or a list with a model that 'anomalib-defects export' or 'anomalib export "
        "--export_type openvino' has written. The table has a row for each image, in order: path, score, pred_label "
        "(1: defective), width, height, brightness, sharpness, centre_x, centre_y, seconds, error, regions, model (its "
        "hash). The same command resumes an interrupted run."
    )
    command = commands.add_parser(
        "inspect", help="inspect many images with an exported model", description=about, allow_abbrev=False
    )
    command.add_argument("model", metavar="MODEL", type=Path, help="exported folder, or OpenVINO graph model.xml")
    command.add_argument(
        "images",
        metavar="FOLDER_OR_LIST",
        type=Path,
        help="folder, searched with its subfolders in sorted order; or text file with one image path per line",
    )
    command.add_argument("--out", metavar="FILE.parquet", type=Path, required=True, help="table; must not exist")
    command.add_argument(
        "--maps",
        metavar="DIR",
        type=Path,
        help="folder for anomaly maps, named after the images: PNG of [0, 1], or TIFF with 32-bit values if beyond",
    )
    command.add_argument(
        "--pictures", metavar="DIR", type=Path, help="folder for overlays, masks and maps, named after the images"
    )
    command.add_argument(
        "--regions",
        metavar="FILE.json",
        type=Path,
        help="file for the regions of defective images, COCO for labelling tools; needs --maps",
    )
    command.add_argument(
        "--threshold", type=float, help="score from which an image is defective; default: the model's own"
    )
    command.add_argument("--batch", type=int, default=1, help="images per batch; default: 1")
    command.add_argument(
        "--precision",
        choices=("f32", "bf16", "f16"),
        default="f32",
        help="inference precision; with the faster bf16 and f16, scores near the threshold are computed again in f32; "
        "default: f32",
    )
    command.add_argument("--device", default="CPU", help="CPU, GPU, NPU, or AUTO for OpenVINO's choice; default: CPU")
    command.add_argument(
        "--max-pixels", type=int, help="maximum pixels of an image; default: as in training, 179 million"
    )
    command.add_argument(
        "--tile", type=int, help="side of the tiles that images are split into, as in WithTiles; default: no tiles"
    )
    command.add_argument("--overlap", type=int, help="pixels that neighbouring tiles share; default: a quarter")
    command.add_argument(
        "--roi-mask", type=Path, help="region of interest: mask, LabelMe file, or folder with one for each image"
    )
    command.add_argument(
        "--reference",
        metavar="TABLE",
        type=Path,
        help="table of an earlier inspection, to find drift of scores, brightness, sharpness and position; writes a "
        "control chart beside the table",
    )
    command.add_argument("--runner", choices=RUNNERS, default="local", help="where to run; default: local")
    command.add_argument("--address", help="address of the Ray cluster; by default Ray is started on this machine")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from anomalib_defect_plugins.inference.drift import read_reference, report_drift
    from anomalib_defect_plugins.inference.graph_checks import threshold_line
    from anomalib_defect_plugins.inference.predictor import InspectSettings

    if options.overlap is not None and options.tile is None:
        msg = f"--overlap {options.overlap} is that of tiles; add --tile with their size"
        raise InvalidInputError(msg)
    maps = options.maps and options.maps.absolute()
    settings = InspectSettings(
        *(options.threshold, options.batch, options.precision, maps, options.max_pixels),
        pictures=options.pictures and options.pictures.absolute(),
        device=options.device,
        tile=options.tile,
        overlap=(options.tile or 0) // 4 if options.overlap is None else options.overlap,
        roi_mask=options.roi_mask and options.roi_mask.absolute(),
    )
    if options.address and options.runner != "ray":
        msg = f"--address {options.address} is that of a Ray cluster; add --runner ray"
        raise InvalidInputError(msg)
    if options.regions and (maps is None or options.regions.suffix.lower() != ".json"):
        msg = f"--regions {options.regions} is made of maps: pass --maps DIR, and a file with the suffix .json"
        raise InvalidInputError(msg)
    if options.reference and not settings.is_whole:
        msg = "--reference compares whole images; leave --tile and --roi-mask out"
        raise InvalidInputError(msg)
    reference = None if options.reference is None else read_reference(options.reference)
    start = time.perf_counter()
    counts = inspect_images(options.model, options.images, options.out, settings, options.runner, options.address)
    rate = counts["inspected"] / (time.perf_counter() - start)
    earlier = counts["images"] - counts["inspected"]
    summary = f"{counted(counts['images'], 'image')}, {counts['defective']} defective{_share(counts)}, "
    summary += f"{counts['error']} with an error"
    note = f" ({earlier} of them earlier)" if earlier else ""
    sys.stdout.write(f"{summary}{note}; {rate:.1f} images per second\ntable: {options.out}\n")
    if options.regions:
        from anomalib_defect_plugins.inference.region_file import write_regions

        root = options.images if options.images.is_dir() else None
        number = write_regions(options.out, maps, options.regions, root)
        sys.stdout.write(f"{counted(number, 'region')}: {options.regions}\n")
    sys.stdout.write(f"{threshold_line(options.model, options.threshold)}\n")
    if reference is not None:
        sys.stdout.write(f"{report_drift(reference, options.out)}\n")
    return 0


def _share(counts: Mapping[str, int]) -> str:
    """Format the share of defective images, and its interval."""
    from anomalib_defect_plugins.core.operating_points import clopper_pearson

    images = counts["images"] - counts["error"]
    if not images:
        return ""
    rate = clopper_pearson(counts["defective"], images)
    return f" ({100 * rate.value:.3g} %; 95 % interval {100 * rate.low:.3g} to {100 * rate.high:.3g} %)"
