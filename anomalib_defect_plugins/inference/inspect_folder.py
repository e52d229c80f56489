"""Looks at any number of images with an exported model; the work behind ``anomalib-defects inspect``."""

import contextlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_defect_plugins.core.ray_cluster import import_ray, start_ray
from anomalib_defect_plugins.inference.resumable_table import ROWS, Item, Parts, Row, invalid, missing

if TYPE_CHECKING:
    import openvino
    from rich.progress import Progress

    from anomalib_defect_plugins.core.image_io import Size
    from anomalib_defect_plugins.inference.openvino import Inspector, Settings

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
"""Of the files in a folder that are images; the same as everywhere in anomalib."""

RUNNERS = ("local", "ray")

RETRIES = 3
"""How often a part whose worker was killed is tried again on a cluster."""

QUEUED = 3
"""Parts a machine of a cluster that are handed out at once, so that it need not wait for the next."""

LOOKED_AT = 100
"""Files at the beginning of a list of which the first readable one tells how large most images are."""

Part = tuple[int, list[Row]]
"""Number of a part, and its rows."""


def inspect(
    model: Path, images: Path, out: Path, settings: "Settings", runner: str = "local", address: str | None = None
) -> Counter[str]:
    """Look at images, and write a table of what was found; shows progress on standard error.

    What an interrupted run has finished is kept, and not done again.

    Args:
        model: Graph that anomalib has exported to OpenVINO.
        images: Folder, or text file with the path of an image a line; relative to the working folder.
        out: The table, a Parquet file that does not exist; see ``schema`` in ``parts.py``.
        settings: What is wanted.
        runner: ``local`` or ``ray``.
        address: Of the Ray cluster, whose machines have this package and find model and images under the same paths.

    Returns:
        How many ``images`` there are, how many ``defective``, how many with an ``error``, and how many of them were
        ``inspected`` now and not by an earlier run.

    Raises:
        MissingDataError: There is no such model, or no images.
        InvalidInputError: A file or a setting cannot be used, or nothing can be written.
    """
    from anomalib_defect_plugins.inference.openvino import check

    _check_files(model, out, settings)
    check(_read(model), settings)
    parts = Parts(out, _dependencies(model, settings))
    if settings.maps:
        _prepare(settings.maps, parts)
    with parts.open(_paths(images)):
        work = _local if runner == "local" else _ray
        inspected = 0
        with _progress() as progress:
            count = parts.count()
            done = count - sum(len(items) for _, items in parts.missing())
            task = progress.add_task("inspecting", total=count, completed=done)
            if done < count:
                for number, rows in work(model, parts, settings, address):
                    parts.write(number, rows)
                    inspected += len(rows)
                    progress.update(task, advance=len(rows))
        return parts.join() + Counter(inspected=inspected)


def _check_files(model: Path, out: Path, settings: "Settings") -> None:
    if model.suffix != ".xml":
        msg = f"{model} is no OpenVINO graph; give the model.xml that 'anomalib export --export_type openvino' writes"
        raise invalid(msg)
    for path in (model, model.with_suffix(".bin")):
        if not path.is_file():
            msg = f"{path} does not exist; 'anomalib export --export_type openvino' writes model.xml and model.bin"
            raise missing(msg)
    if out.suffix != ".parquet":
        msg = f"--out {out} is no Parquet file; give one such as {out.with_suffix('.parquet')}"
        raise invalid(msg)
    if settings.batch < 1:
        msg = f"--batch is {settings.batch}; it must be 1 or more"
        raise invalid(msg)


def _dependencies(model: Path, settings: "Settings") -> dict[str, Any]:
    """Give what the results depend on besides the list of files."""
    digest = sha256()
    for path in (model, model.with_suffix(".bin")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    options = {f"--{name}": getattr(settings, name) for name in ("threshold", "batch", "precision")}
    return {"model": digest.hexdigest(), **options, "--maps": settings.maps and str(settings.maps)}


def _prepare(maps: Path, parts: Parts) -> None:
    try:
        maps.mkdir(parents=True, exist_ok=True)
        is_full = any(maps.iterdir())
    except OSError as error:
        msg = f"cannot write to {maps} ({error.strerror}); give another folder (--maps)"
        raise invalid(msg) from error
    if is_full and not parts.is_begun:
        msg = f"{maps} holds something; give an empty or a new folder (--maps)"
        raise invalid(msg)


def _paths(images: Path) -> Iterator[str]:
    """Give the paths of the images; stops if there is none."""
    found = False
    try:
        for path in _folder(images) if images.is_dir() else _list(images):
            found = True
            yield path
    except OSError as error:
        msg = f"cannot read {error.filename or images} ({error.strerror}); give a folder of images, or a text file "
        raise missing(msg + "with the path of an image a line") from error
    if not found:
        msg = f"{images} holds no image; give a folder with some, or a text file with the path of an image a line"
        raise missing(msg)


def _list(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if "\0" in line:
                msg = f"{path} is no text file; give a folder, or a text file with the path of an image a line"
                raise invalid(msg)
            if line.strip():
                yield line.rstrip("\r\n")


def _folder(folder: Path) -> Iterator[str]:
    """Give the images in a folder and its subfolders, sorted; hidden ones are left out, links to folders too."""
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _folder(Path(entry.path))
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            if "\n" in entry.path:
                msg = f"{entry.path!r} has a line break in its name; rename it"
                raise invalid(msg)
            yield entry.path


def _local(model: Path, parts: Parts, settings: "Settings", address: str | None) -> Iterator[Part]:
    """Look at the images of the missing parts in this process; gives the parts in order."""
    del address
    items = (item for _, part in parts.missing() for item in part)
    rows = _inspector(model, settings, _common_size(parts)).inspect(items)
    for number, group in itertools.groupby(rows, lambda row: row[0] // ROWS):
        yield number, [row for _, row in group]


def _ray(model: Path, parts: Parts, settings: "Settings", address: str | None) -> Iterator[Part]:
    """Look at the images of the missing parts on a Ray cluster, each part a task; gives them as they come."""
    ray = import_ray()
    start_ray(ray, address, ignore_reinit_error=True, **({"include_dashboard": False} if address is None else {}))
    try:
        # A task has a machine for itself, since OpenVINO makes better use of its cores than several processes would.
        machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cores = max(1, min(filter(None, machines), default=1))
        task = ray.remote(num_cpus=cores, max_retries=RETRIES)(_inspect_part)
        size, folder = _common_size(parts), Path.cwd()
        running: list[Any] = []
        for number, items in parts.missing():
            running.append(task.remote(model.absolute(), settings, size, cores, folder, number, items))
            if len(running) > QUEUED * len(machines):
                yield _next(ray, running)
        while running:
            yield _next(ray, running)
    finally:
        if address is None:
            ray.shutdown()


def _next(ray: Any, running: list[Any]) -> Part:
    """Give the next part that is done."""
    (done,), _ = ray.wait(running, num_returns=1)
    running.remove(done)
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _inspect_part(
    model: Path, settings: "Settings", size: "Size | None", cores: int, folder: Path, number: int, items: list[Item]
) -> Part:
    """Look at the images of one part, on whatever machine this runs."""
    rows = _inspector(model, settings, size, cores).inspect(items, folder)
    return number, [row for _, row in rows]


@lru_cache(maxsize=1)
def _inspector(model: Path, settings: "Settings", size: "Size | None", cores: int | None = None) -> "Inspector":
    """Load a model; a worker of a cluster does so once for all its parts."""
    from anomalib_defect_plugins.inference.openvino import Inspector

    inspector = Inspector(_read(model), settings, size, cores)
    if size is not None and inspector.size not in {None, size}:
        (height, width), (high, wide) = inspector.size, size
        sys.stderr.write(
            f"warning: {model.name} takes images of {width}x{height} only, so those of {wide}x{high} are resized; a "
            "graph that was exported without --input_size resizes as in training\n"
        )
    return inspector


def _read(model: Path) -> "openvino.Model":
    import openvino

    try:
        return openvino.Core().read_model(model)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        msg = f"{model} cannot be read ({reason}); export the model again with 'anomalib export'"
        raise invalid(msg) from error


def _common_size(parts: Parts) -> "Size | None":
    """Give height and width of the first image that can be read, if it is among the first few."""
    from PIL import Image

    for _, path in itertools.islice(parts.items(), LOOKED_AT):
        # What is wrong with the others will stand in their rows.
        with contextlib.suppress(Exception), Image.open(path) as image:
            return image.size[::-1]
    return None


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    class Rate(TextColumn):
        """Images a second."""

        def render(self, task: Any) -> Any:
            """Give it for a task."""
            task.fields["rate"] = f"{task.speed or 0:.1f}"
            return super().render(task)

    console = Console(stderr=True)
    rate = Rate("{task.fields[rate]} images/s")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
