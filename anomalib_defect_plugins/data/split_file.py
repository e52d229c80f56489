"""A split as a CSV file: which image is for training, validation and test."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError

COLUMNS = ["split", "image", "label", "defect_type"]


def write_split(path: Path, tables: Mapping[str, DataFrame], images: Iterable[str]) -> None:
    """Write a split, atomically.

    Args:
        path: The CSV file: columns ``split``, ``image`` (relative to the folder that holds all images, so that the file
            is good for a copy of the data too), ``label`` and ``defect_type``.
        tables: The tables of samples by the name of the split.
        images: Paths of all images of the data, also of those in no split.
    """
    root = _common_folder(images)
    rows = [
        (split, _relative(sample.image_path, root), sample.label_index, sample.defect_type)
        for split, table in tables.items()
        for sample in table.itertuples()
    ]
    partial = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    DataFrame(rows, columns=COLUMNS).to_csv(partial, index=False)
    os.replace(partial, path)


def read_split(path: Path, images: Iterable[str]) -> dict[str, set[str]]:
    """Read a split.

    Args:
        path: What :func:`write_split` has written.
        images: Paths of all images that the split may name.

    Returns:
        Paths by the name of the split.

    Raises:
        MissingDataError: There is no such file, or no such image among ``images``.
        InvalidInputError: The file holds something else.
    """
    try:
        table = pd.read_csv(path, dtype=str)[COLUMNS]
    except FileNotFoundError as error:
        msg = f"split file {path} does not exist; give a {path.name} that a run has left beside its results"
        raise MissingDataError(msg) from error
    except (KeyError, ValueError, OSError) as error:
        msg = f"{path} holds no split ({' '.join(str(error).split())}); give what a run has left beside its results"
        raise InvalidInputError(msg) from error
    images = list(images)
    root = _common_folder(images)
    known = {_relative(image, root): image for image in images}
    unknown = [image for image in table.image if image not in known]
    if unknown:
        msg = f"split file {path} names {unknown[0]}, which the data does not have; give the data it was written for"
        raise MissingDataError(msg)
    return {split: {known[image] for image in rows.image} for split, rows in table.groupby("split")}


def _common_folder(images: Iterable[str]) -> Path:
    return Path(os.path.commonpath([Path(image).resolve().parent for image in images]))


def _relative(image: str, root: Path) -> str:
    return Path(image).resolve().relative_to(root).as_posix()
