"""Summary of a data module: counts, sizes and defect areas of its images, and a contact sheet."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageItem
from pandas import DataFrame
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.data.contact_sheet import Thumbnail, contact_sheet, make_thumbnail, row_label, save_sheet
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.stock_datasets import checked
from anomalib_defect_plugins.data.training_set import published_defects, with_defect_types

SPLITS = ("train", "train_defects", "val", "test")
"""Splits in display order; ``train_defects`` are the unused defective images of a published training split."""

MAX_LISTED_SIZES = 8
"""Maximum number of distinct image sizes to list; of more, the range is printed."""

TILE = ("tile_top", "tile_left")
"""Columns of the position of a tile in its image."""


def summarize_datamodule(datamodule: AnomalibDataModule, sheet: Path | None = None, count: int = 8) -> dict[str, Any]:
    """Read all images of a data module once and optionally write a contact sheet of some of them.

    Args:
        datamodule: Data module that is set up. The augmentations of its data sets are removed.
        sheet: PNG file to write the contact sheet to, replaced if it exists; ``None`` for no contact sheet.
        count: Maximum number of images of each type and split on the contact sheet.

    Returns:
        The values of :func:`summarize`, and ``name`` and ``category`` of the data module.

    Raises:
        UserError: If there are no images, one cannot be read, or the contact sheet cannot be written.
    """
    datasets = {split: checked(dataset) for split, dataset in datasets_of(datamodule).items()}
    images = list_images(datasets)
    shown = select_shown(images, count) if sheet else {}
    images, thumbnails = read_images(datasets, images, chain.from_iterable(shown.values()))
    if sheet:
        sizes = images.groupby(["defect_type", "splits"]).size()
        rows = [(row_label(*key, sizes[key]), [thumbnails[row] for row in group]) for key, group in shown.items()]
        save_sheet(contact_sheet(rows), sheet)
    return {"name": datamodule.name, "category": datamodule.category or None, **summarize(images)}


def datasets_of(datamodule: AnomalibDataModule) -> dict[str, AnomalibDataset]:
    """Return the existing data sets of a data module that is set up, by name of the split in ``SPLITS``."""
    datasets = {split: getattr(datamodule, f"{split}_data", None) for split in SPLITS}
    datasets["train_defects"] = published_defects(datamodule)
    return {split: dataset for split, dataset in datasets.items() if dataset is not None}


def list_images(datasets: dict[str, AnomalibDataset]) -> DataFrame:
    """Build a table with one row for each image or tile, even if several splits contain it.

    Args:
        datasets: Data sets by name of the split.

    Returns:
        Table with the columns ``image_path``, ``defect_type`` (the label, in data sets without types), ``splits``
        (tuple of the splits that contain the image), ``row`` (its row in the first of them) and, if a data set has it,
        ``group`` and ``mm_per_pixel``.

    Raises:
        InvalidInputError: If there are no images.
    """
    if not sum(map(len, datasets.values())):
        msg = "the data module has no images: choose a root that contains images"
        raise InvalidInputError(msg)
    parts = []
    for split, dataset in datasets.items():
        table = with_defect_types(dataset.samples).reset_index(drop=True)
        columns = table.columns.intersection(["image_path", "defect_type", "group", "mm_per_pixel", *TILE])
        parts.append(table[columns].assign(splits=split, row=range(len(table))))
    images = pd.concat(parts, ignore_index=True)
    keys = ["image_path", *images.columns.intersection(TILE)]
    first = {column: (column, "first") for column in images.columns if column not in {*keys, "splits"}}
    return images.groupby(keys, sort=False, dropna=False).agg(splits=("splits", _distinct), **first).reset_index()


def select_shown(images: DataFrame, count: int) -> dict[tuple[str, tuple[str, ...]], list[int]]:
    """Select images for the contact sheet, evenly spaced in each type and split.

    Args:
        images: Table of :func:`list_images`.
        count: Maximum number of images of each type and split.

    Returns:
        Rows of ``images`` by type and splits, ``good`` first.
    """
    groups = images.groupby(["defect_type", "splits"]).indices
    order = sorted(groups, key=lambda group: (group[0] != GOOD, group[0], [SPLITS.index(name) for name in group[1]]))
    return {
        group: [int(groups[group][at]) for at in np.linspace(0, len(groups[group]) - 1, count).round().astype(int)]
        if len(groups[group]) > count
        else groups[group].tolist()
        for group in order
    }


def read_images(
    datasets: dict[str, AnomalibDataset], images: DataFrame, shown: Iterable[int] = ()
) -> tuple[DataFrame, dict[int, Thumbnail]]:
    """Read every image and mask once, without augmentations, with a progress bar on standard error.

    Args:
        datasets: Data sets by name of the split; their augmentations are removed.
        images: Table of :func:`list_images`.
        shown: Rows of ``images`` to return a thumbnail of.

    Returns:
        ``images`` with ``width``, ``height`` and ``defect_share`` (share of defect pixels in [0, 1], NaN without a
        mask or on a normal image), and the thumbnails by row.

    Raises:
        UserError: If images or masks cannot be read; names all of them.
    """
    faults = Faults(next(iter(datasets.values())).name)
    for dataset in datasets.values():
        dataset.augmentations = None
    measured, thumbnails, shown = [], {}, set(shown)
    console = Console(stderr=True)
    options: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    for image in track(images.itertuples(), "reading images", len(images), **options):
        with faults.collect():
            item = _read(datasets[image.splits[0]], image.row, image.image_path)
            height, width = cast(Tensor, item.image).shape[-2:]
            measured.append((width, height, _share(item)))
            if image.Index in shown:
                thumbnails[image.Index] = make_thumbnail(item)
    faults.raise_all()
    return images.assign(**DataFrame(measured, columns=["width", "height", "defect_share"])), thumbnails


def _read(dataset: AnomalibDataset, row: int, path: str) -> ImageItem:
    try:
        return cast(ImageItem, dataset[row])
    except UserError:
        raise
    except Exception as error:  # decoders raise errors of many types on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"cannot read image {path} or its mask ({reason}); replace the broken file or remove both"
        raise InvalidInputError(msg) from error


def _share(item: ImageItem) -> float:
    normal = item.gt_label is not None and not item.gt_label
    return math.nan if normal or item.gt_mask is None else item.gt_mask.float().mean().item()


def summarize(images: DataFrame) -> dict[str, Any]:
    """Summarize the images of a data module.

    Args:
        images: Table of :func:`read_images`.

    Returns:
        Plain values for JSON: ``types`` (for each ``defect_type``, ``good`` first: images of each split, distinct
        ``images``, and ``defect_share``, the median share of defect pixels in [0, 1]), ``total`` (the same for all
        types), ``shared`` (images in several splits), ``sizes`` (most frequent first), ``objects`` (``None`` if
        unknown), ``mm_per_pixel`` (sizes of a pixel; ``None`` if unknown) and ``empty_masks`` (paths of defective
        images whose mask is empty).
    """
    present = [split for split in SPLITS if any(split in splits for splits in images.splits)]
    types = sorted(set(images.defect_type), key=lambda name: (name != GOOD, name))
    sizes = images.groupby(["width", "height"]).size().sort_values(ascending=False, kind="stable")
    shared = images.splits[images.splits.map(len) > 1].value_counts()
    return {
        "types": [{"defect_type": name, **_count(images[images.defect_type == name], present)} for name in types],
        "total": _count(images, present),
        "shared": [{"splits": list(splits), "images": int(count)} for splits, count in shared.items()],
        "sizes": [{"width": int(w), "height": int(h), "images": int(count)} for (w, h), count in sizes.items()],
        "objects": int(images.group.nunique()) if "group" in images else None,
        "mm_per_pixel": sorted(set(images.mm_per_pixel.dropna())) if "mm_per_pixel" in images else None,
        "empty_masks": images.image_path[images.defect_share == 0].tolist(),
    }


def _distinct(splits: "pd.Series[str]") -> tuple[str, ...]:
    return tuple(dict.fromkeys(splits))


def _count(images: DataFrame, splits: Iterable[str]) -> dict[str, Any]:
    median = images.defect_share.median() if images.defect_share.notna().any() else None
    counts = {split: sum(split in contained for contained in images.splits) for split in splits}
    return {**counts, "images": len(images), "defect_share": median}


def summary_table(summary: dict[str, Any]) -> Table:
    """Build the table of a summary: a row for each defect type, a column for each split."""
    columns = list(summary["total"])[:-1]
    table = Table(show_footer=True)
    table.add_column("defect type", "total", overflow="fold")
    for column in columns:
        table.add_column(column, str(summary["total"][column]), justify="right")
    table.add_column("defect pixels", _percent(summary["total"]["defect_share"]), justify="right")
    for row in summary["types"]:
        counts = [str(row[column] or "-") for column in columns]
        table.add_row(Text(row["defect_type"]), *counts, _percent(row["defect_share"]))
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def remarks(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the lines to print below the table."""
    for entry in summary["shared"]:
        yield f"{_images(entry['images'])} shared by {' and '.join(entry['splits'])}"
    yield f"image sizes: {_sizes(summary['sizes'])}"
    for scale in summary["mm_per_pixel"] or ():
        sizes = {(size["width"] * scale, size["height"] * scale) for size in summary["sizes"]}
        (least, low), (most, high) = min(sizes), max(sizes)
        span = f"{least:.4g}x{low:.4g} mm" + ("" if len(sizes) == 1 else f" to {most:.4g}x{high:.4g} mm")
        yield f"size of a pixel: {scale:g} mm, of an image: {span}"
    if summary["objects"] is not None:
        yield f"objects: {summary['objects']}"
    if summary["total"]["defect_share"] is not None:
        yield "defect pixels: median of their share in the masks of defective images"
    if empty := summary["empty_masks"]:
        yield f"{_images(len(empty))} labelled defective with an empty mask, such as {empty[0]}"


def _images(count: int) -> str:
    return f"{count} image{' is' if count == 1 else 's are'}"


def _sizes(sizes: list[dict[str, int]]) -> str:
    if len(sizes) <= MAX_LISTED_SIZES:
        return ", ".join(f"{size['width']}x{size['height']} ({size['images']})" for size in sizes)
    width, height = (_range([size[side] for size in sizes]) for side in ("width", "height"))
    return f"{len(sizes)} different ones, {width} pixels wide and {height} high"


def _range(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"
