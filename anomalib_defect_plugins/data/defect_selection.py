"""Random selection of the defective images to train on."""

from typing import Literal

import pandas as pd
from pandas import DataFrame

from anomalib_defect_plugins.core.checks import check_positive
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.text import counted
from anomalib_defect_plugins.data.dataclasses import split_types
from anomalib_defect_plugins.data.sample_table import shuffled

Amount = int | float | Literal["all"]
"""A number of images, a share of them in (0, 1], or ``all``."""


def select(
    defects: DataFrame,
    real: Amount,
    per_type: int | None,
    seed: int,
    source: str,
    per_object: int | None = None,
    name: str = "real",
) -> list[str]:
    """Select defective images at random, object by object where the table has objects.

    Args:
        defects: Table of the available images, with ``image_path``, ``defect_type`` and optionally ``group`` and
            ``marked``; images with ``marked`` false, whose mask is empty, are selected last.
        real: Number of images to select, without ``per_type``.
        per_type: Minimum number of images to select of each type; an image of several types counts for each.
        seed: Seed of the selection; a larger amount with the same seed extends the selection.
        source: Origin of the images, for the message.
        per_object: Maximum number of images of each object; ``None`` for all. Without ``group`` each image is an
            object.
        name: Name of the argument ``real``, for the message.

    Returns:
        Paths of the selected images.

    Raises:
        InvalidInputError: If an argument is invalid, or there are too few images.
    """
    order = _shuffled(defects, seed)
    if per_object is not None:
        check_positive(per_object=per_object)
        if "group" in order:
            order = order[order.groupby("group").cumcount() < per_object]
            source += f", {per_object} of an object,"
    if per_type is None:
        return list(order.image_path.iloc[: _count(real, len(order), source, name)])
    if real:
        msg = f"real is {real} and per_type is {per_type}: choose one of them"
        raise InvalidInputError(msg)
    return _select_of_each_type(order, per_type, source)


def _shuffled(defects: DataFrame, seed: int) -> DataFrame:
    """Shuffle so that the order of images with a mask does not depend on the presence of those without."""
    if "marked" not in defects:
        return shuffled(defects, seed)
    return pd.concat([shuffled(part, seed) for part in (defects[defects.marked], defects[~defects.marked])])


def _count(real: Amount, available: int, source: str, name: str) -> int:
    if real == "all":
        return available
    if isinstance(real, float):
        if not 0 < real <= 1:
            msg = f"{name} is {real}: use a number of images, a share of them in (0, 1], or 'all'"
            raise InvalidInputError(msg)
        return round(real * available)
    if not isinstance(real, int) or not 0 <= real <= available:
        msg = f"{name} is {real}, but {source} has {counted(available, 'defective image')}; choose 0 to {available}"
        raise InvalidInputError(msg)
    return real


def _select_of_each_type(order: DataFrame, per_type: int, source: str) -> list[str]:
    """Start with the rarest type, because its images may count for the other types."""
    check_positive(per_type=per_type)
    images: dict[str, list[str]] = {}
    for path, types in zip(order.image_path, order.defect_type, strict=True):
        for defect_type in split_types(types):
            images.setdefault(defect_type, []).append(path)
    selected: dict[str, None] = {}
    for defect_type, paths in sorted(images.items(), key=lambda item: (len(item[1]), item[0])):
        if len(paths) < per_type:
            found = counted(len(paths), "image")
            msg = f"per_type is {per_type}, but {source} has only {found} of type {defect_type!r}"
            raise InvalidInputError(msg)
        rest = [path for path in paths if path not in selected]
        missing = per_type - (len(paths) - len(rest))
        selected.update(dict.fromkeys(rest[: max(0, missing)]))
    return list(selected)
