"""Inspection of any number of images with an exported model, as ``anomalib-defects inspect`` does it."""

import contextlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.image_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES, unread_warning
from anomalib_defect_plugins.core.ray_cluster import import_ray, start_ray
from anomalib_defect_plugins.core.region_masks import RegionMasks
from anomalib_defect_plugins.core.tiling import check_tiles
from anomalib_defect_plugins.inference.bundle import find_graph, hash_graph
from anomalib_defect_plugins.inference.image_list import read_list
from anomalib_defect_plugins.inference.resumable_table import (
    LITTLE_RANGE,
    ROWS_PER_PART,
    NumberedPath,
    ResumableTable,
    TablePart,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from anomalib_defect_plugins.core.image_io import Size
    from anomalib_defect_plugins.inference.openvino import Inspector
    from anomalib_defect_plugins.inference.predictor import InspectSettings

RUNNERS = ("local", "ray")

MAX_RETRIES = 3
"""Maximum retries of a part whose worker on the cluster was killed."""

QUEUED_PARTS_PER_HOST = 3
"""Parts submitted at once for each host of a cluster, so that hosts do not wait for the next one."""

MAX_SCORE = 3.4e38
"""Highest absolute value of scores, which have single precision."""

MAX_PROBED_IMAGES = 100
"""Maximum images opened to find the common image size."""


def inspect_images(
    model: Path, images: Path, out: Path, settings: "InspectSettings", runner: str = "local", address: str | None = None
) -> Counter[str]:
    """Inspect images and write a table of the results, with progress on standard error.

    Parts that an interrupted run has finished are kept.

    Args:
        model: Bundle, or OpenVINO graph exported by anomalib.
        images: Folder, or text file with one image path per line, relative to the working directory.
        out: Parquet file of the table, which must not exist; see ``resumable_table.schema``.
        settings: The settings.
        runner: ``local`` or ``ray``.
        address: Address of the Ray cluster. Its hosts need this package, and the model and images under the same paths.

    Returns:
        Number of ``images``, of ``defective`` ones, of those with an ``error``, and of those ``inspected`` by this call
        rather than an earlier run.

    Raises:
        MissingDataError: If the model does not exist, or there are no images.
        InvalidInputError: If a file or setting is invalid, or the results cannot be written.
    """
    from anomalib_defect_plugins.inference.compiled_graph import check_device
    from anomalib_defect_plugins.inference.graph_checks import check_graph
    from anomalib_defect_plugins.inference.openvino import read_graph
    from anomalib_defect_plugins.inference.pictures import common_folder

    _check_files(model, out, settings)
    check_device(settings.device)
    table = ResumableTable(out, _dependencies(model, settings))
    for name, folder in (("--maps", settings.maps), ("--pictures", settings.pictures)):
        if folder:
            _prepare_folder(name, folder, table)
    check_graph(read_graph(model), settings.threshold, settings.batch, settings.maps or settings.pictures)
    with table.open(image_paths(images)):
        settings = replace(settings, root=common_folder(path for _, path in table.numbered_paths()))
        inspected = _write_missing_parts(model, table, settings, runner, address)
        return table.join() + Counter(inspected=inspected)


def _write_missing_parts(
    model: Path, table: ResumableTable, settings: "InspectSettings", runner: str, address: str | None
) -> int:
    """Inspect the images of the missing parts, and return their number."""
    inspect = _inspect_locally if runner == "local" else _inspect_on_ray
    total = table.count_images()
    done = total - sum(len(images) for _, images in table.missing_parts())
    inspected = 0
    dark_or_white, first = 0, ""
    with _progress() as progress:
        task = progress.add_task("inspecting", total=total, completed=done)
        if done < total:
            for number, rows in inspect(model, table, settings, address):
                table.write_part(number, rows)
                inspected += len(rows)
                found = [row["path"] for row in rows if LITTLE_RANGE in row]
                first, dark_or_white = first or next(iter(found), ""), dark_or_white + len(found)
                progress.update(task, advance=len(rows))
    if dark_or_white:
        from anomalib_defect_plugins.core.value_range import little_range_warning

        sys.stderr.write(f"warning: {little_range_warning(first, dark_or_white, inspected)}\n")
    return inspected


def _check_files(model: Path, out: Path, settings: "InspectSettings") -> None:
    find_graph(model)
    if out.suffix != ".parquet":
        msg = f"--out {out} is not a Parquet file; use {out.with_suffix('.parquet')}"
        raise InvalidInputError(msg)
    for name, number in (("--batch", settings.batch), ("--max-pixels", settings.max_pixels)):
        if number is not None and number < 1:
            msg = f"{name} is {number}; it must be 1 or more"
            raise InvalidInputError(msg)
    _check_parts(settings)
    if settings.threshold is not None and not abs(settings.threshold) <= MAX_SCORE:
        msg = f"--threshold is {settings.threshold}; it must be a finite number"
        raise InvalidInputError(msg)


def _check_parts(settings: "InspectSettings") -> None:
    """Check the tiles and the region of interest."""
    if settings.tile is not None:
        check_tiles(settings.tile, settings.overlap, ("--tile", "--overlap"))
    if settings.roi_mask is not None:
        RegionMasks(settings.roi_mask)
    if settings.pictures is not None and not settings.is_whole:
        msg = "--pictures is for images as a whole; use --maps, or leave --tile and --roi-mask out"
        raise InvalidInputError(msg)


def _dependencies(model: Path, settings: "InspectSettings") -> dict[str, Any]:
    """Return what the results depend on besides the list of images."""
    return {
        "model": hash_graph(find_graph(model)),
        "--threshold": settings.threshold,
        "--batch": settings.batch,
        "--precision": settings.precision,
        "--maps": settings.maps and str(settings.maps),
        "--max-pixels": settings.max_pixels,
        "--pictures": settings.pictures and str(settings.pictures),
        "--device": settings.device,
        "--tile": settings.tile,
        "--overlap": settings.overlap if settings.tile else None,
        "--roi-mask": settings.roi_mask and str(settings.roi_mask),
    }


def _prepare_folder(option: str, folder: Path, table: ResumableTable) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        msg = f"cannot write to {folder} ({error.strerror}); choose another folder ({option})"
        raise InvalidInputError(msg) from error
    if not is_empty and not table.is_started:
        msg = f"{folder} is not empty; choose an empty or a new folder ({option})"
        raise InvalidInputError(msg)


def image_paths(images: Path) -> Iterator[str]:
    """Iterate over the paths of the images in a folder or a list.

    Raises:
        MissingDataError: If there are none.
        InvalidInputError: If the list is not a text file, or a path contains a line break.
    """
    is_empty = True
    try:
        unread: list[str] = []
        for path in scan_folder(images, unread) if images.is_dir() else read_list(images):
            is_empty = False
            yield path
        if unread:
            sys.stderr.write(f"warning: {unread_warning(unread[0], len(unread))}\n")
    except OSError as error:
        msg = f"cannot read {error.filename or images} ({error.strerror}); use a folder of images, or a text file "
        raise MissingDataError(msg + "with one image path per line") from error
    if is_empty:
        msg = f"{images} contains no images; use a folder of images, or a text file with one image path per line"
        raise MissingDataError(msg)


def scan_folder(folder: Path, unread: list[str]) -> Iterator[str]:
    """Iterate over the images in a folder and its subfolders, sorted, without hidden files and links to folders.

    Args:
        folder: The folder.
        unread: List to which images in formats that are not read are added.
    """
    with os.scandir(folder) as scan:
        entries = sorted((entry for entry in scan if entry.name[0] != "."), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from scan_folder(Path(entry.path), unread)
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            if "\n" in entry.path:
                msg = f"{entry.path!r} has a line break in its name; rename it"
                raise InvalidInputError(msg)
            yield entry.path
        elif Path(entry.name).suffix.lower() in UNREAD_SUFFIXES:
            unread.append(entry.path)


def _inspect_locally(
    model: Path, table: ResumableTable, settings: "InspectSettings", address: str | None
) -> Iterator[TablePart]:
    """Inspect the missing parts in this process, in order."""
    del address
    images = (image for _, part in table.missing_parts() for image in part)
    rows = _inspector(model, settings, _common_size(table, settings)).inspect(images)
    for number, group in itertools.groupby(rows, lambda row: row[0] // ROWS_PER_PART):
        yield number, [row for _, row in group]


def _inspect_on_ray(
    model: Path, table: ResumableTable, settings: "InspectSettings", address: str | None
) -> Iterator[TablePart]:
    """Inspect the missing parts on a Ray cluster, one task per part, in the order of completion."""
    ray = import_ray()
    start_ray(ray, address, ignore_reinit_error=True, **({"include_dashboard": False} if address is None else {}))
    try:
        # A task takes a whole host, because OpenVINO uses all cores better than several processes do.
        hosts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cores = max(1, min(filter(None, hosts), default=1))
        task = ray.remote(num_cpus=cores, max_retries=MAX_RETRIES)(_inspect_part)
        size, folder = _common_size(table, settings), Path.cwd()
        running: list[Any] = []
        for number, images in table.missing_parts():
            running.append(task.remote(model.absolute(), settings, size, cores, folder, number, images))
            if len(running) > QUEUED_PARTS_PER_HOST * len(hosts):
                yield _next_part(ray, running)
        while running:
            yield _next_part(ray, running)
    finally:
        if address is None:
            ray.shutdown()


def _next_part(ray: Any, running: list[Any]) -> TablePart:
    """Wait for a part, and remove its task from the running ones."""
    (done,), _ = ray.wait(running, num_returns=1)
    running.remove(done)
    try:
        return cast(TablePart, ray.get(done))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _inspect_part(
    model: Path,
    settings: "InspectSettings",
    size: "Size | None",
    cores: int,
    folder: Path,
    number: int,
    images: list[NumberedPath],
) -> TablePart:
    """Inspect the images of one part on a host of the cluster."""
    rows = _inspector(model, settings, size, cores).inspect(images, folder)
    return number, [row for _, row in rows]


@lru_cache(maxsize=1)
def _inspector(model: Path, settings: "InspectSettings", size: "Size | None", cores: int | None = None) -> "Inspector":
    """Load a model, once per worker of a cluster."""
    from anomalib_defect_plugins.inference.graph_checks import has_threshold
    from anomalib_defect_plugins.inference.openvino import Inspector, read_graph

    inspector = Inspector(read_graph(model), settings, size, cores)
    if not has_threshold(inspector.network):
        sys.stderr.write(
            f"warning: {model.name} has no threshold of its own: its scores are taken as raw, and maps are written as "
            "TIFF with 32-bit values\n"
        )
    if size is not None and inspector.size is not None and inspector.size != size:
        (height, width), (image_height, image_width) = inspector.size, size
        sys.stderr.write(
            f"warning: {model.name} takes images of {width}x{height} only, so those of {image_width}x{image_height} "
            "are resized; a graph that was exported without --input_size resizes as in training\n"
        )
    return inspector


def _common_size(table: ResumableTable, settings: "InspectSettings") -> "Size | None":
    """Return height and width of tiles, or of the first readable image; ``None`` if none of the first few is."""
    from anomalib_defect_plugins.core.image_io import read_size
    from anomalib_defect_plugins.inference.openvino import pixel_limit

    if settings.tile is not None:
        return settings.tile, settings.tile
    for _, path in itertools.islice(table.numbered_paths(), MAX_PROBED_IMAGES):
        # Errors of the others are reported in their rows.
        with contextlib.suppress(Exception), pixel_limit(settings.max_pixels):
            return read_size(path)[::-1]
    return None


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(TextColumn):
        """Images per second."""

        def render(self, task: Task) -> Text:
            """Render the rate of a task."""
            task.fields["rate"] = f"{task.speed or 0:.1f}"
            return super().render(task)

    console = Console(stderr=True)
    rate = RateColumn("{task.fields[rate]} images/s")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
