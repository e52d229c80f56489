"""A split as a CSV file that names the images of each subset."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.files import atomic_path

COLUMNS = ["split", "image", "label", "defect_type"]


def write_split(path: Path, tables: Mapping[str, DataFrame], images: Iterable[str]) -> None:
    """Write a split atomically.

    Image paths are relative to the common folder of all images, so the file fits a copy of the data too.

    Args:
        path: CSV file to write, with the columns ``split``, ``image``, ``label`` and ``defect_type``.
        tables: Tables of samples by name of the split.
        images: Paths of all images of the data, including those in no split.
    """
    root = _common_folder(images)
    rows = [
        (split, _relative(sample.image_path, root), sample.label_index, sample.defect_type)
        for split, table in tables.items()
        for sample in table.itertuples()
    ]
    with atomic_path(path) as partial:
        DataFrame(rows, columns=COLUMNS).to_csv(partial, index=False)


def read_split(path: Path, images: Iterable[str]) -> dict[str, set[str]]:
    """Read a split.

    Args:
        path: File written by :func:`write_split`.
        images: Paths of all images that the split may name.

    Returns:
        Image paths by name of the split.

    Raises:
        MissingDataError: If the file, or an image that it names, does not exist.
        InvalidInputError: If the file is not a split.
    """
    try:
        table = pd.read_csv(path, dtype=str)[COLUMNS]
    except FileNotFoundError as error:
        msg = f"split file {path} does not exist; choose a split.csv from the results of a run"
        raise MissingDataError(msg) from error
    except (KeyError, ValueError, OSError) as error:
        msg = f"{path} is not a split file ({' '.join(str(error).split())}); choose one from the results of a run"
        raise InvalidInputError(msg) from error
    images = list(images)
    root = _common_folder(images)
    known = {_relative(image, root): image for image in images}
    unknown = [image for image in table.image if image not in known]
    if unknown:
        msg = f"split file {path} names {unknown[0]}, which the data does not have; use the data of its run"
        raise MissingDataError(msg)
    return {split: {known[image] for image in rows.image} for split, rows in table.groupby("split")}


def _common_folder(images: Iterable[str]) -> Path:
    return Path(os.path.commonpath([Path(image).resolve().parent for image in images]))


def _relative(image: str, root: Path) -> str:
    return Path(image).resolve().relative_to(root).as_posix()
