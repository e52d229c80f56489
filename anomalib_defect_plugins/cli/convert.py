"""``anomalib-defects convert``: annotations of labelling tools to folders of images and masks, or to COCO."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.text import counted


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Convert annotations of COCO, LabelMe, CVAT for images, YOLO segmentation, Pascal VOC or Label Studio, a "
        "folder of images and masks, or the table of 'anomalib-defects inspect'. The masks are the same, pixel by "
        "pixel; regions of an inspection are polygons with few points."
    )
    command = commands.add_parser(
        "convert", help="convert annotations of labelling tools", description=about, allow_abbrev=False
    )
    command.add_argument("source", metavar="SOURCE", type=Path, help="exported file or folder, or table of inspect")
    command.add_argument(
        "--out", type=Path, required=True, help="new folder as DefectFolder reads it, or FILE.json for COCO"
    )
    command.add_argument(
        "--images", metavar="DIR", type=Path, help="folder of the images; default: that of the annotations"
    )
    command.add_argument("--maps", metavar="DIR", type=Path, help="folder of the maps, for a table of inspect")
    command.add_argument(
        "--region-threshold",
        metavar="VALUE",
        type=float,
        help="map value from which a pixel is defective, for a table of inspect; default: 0.5, that of normalised maps",
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    is_coco = options.out.suffix.lower() == ".json"
    if options.source.suffix == ".parquet":
        return _convert_table(options, is_coco)
    for name in ("maps", "region_threshold"):
        if getattr(options, name) is not None:
            msg = f"--{name.replace('_', '-')} is for a table of 'anomalib-defects inspect'; leave it out"
            raise InvalidInputError(msg)
    from anomalib_defect_plugins.data.annotations.conversion import open_source, to_coco, to_folder

    source = open_source(options.source, options.images)
    counts = (to_coco if is_coco else to_folder)(source, options.out, _progress)
    types = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    sys.stdout.write(f"{counted(counts.total(), 'image')} ({types})\n{options.out}\n")
    return 0


def _convert_table(options: argparse.Namespace, is_coco: bool) -> int:
    from anomalib_defect_plugins.inference.region_file import write_regions

    if not is_coco or options.maps is None:
        msg = "a table of 'anomalib-defects inspect' is converted to COCO: pass --maps DIR and --out FILE.json"
        raise InvalidInputError(msg)
    number = write_regions(options.source, options.maps, options.out, options.images, options.region_threshold)
    sys.stdout.write(f"{counted(number, 'region')}\n{options.out}\n")
    return 0


def _progress(images: Sequence[Path]) -> Iterator[Path]:
    """Yield the images with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(images, "converting", console=console, transient=True, disable=not console.is_terminal)
