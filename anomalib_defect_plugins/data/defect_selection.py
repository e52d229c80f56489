"""Which defective images go to training."""

from typing import Literal

import pandas as pd
from pandas import DataFrame

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.dataclasses import split_types
from anomalib_defect_plugins.data.sample_table import shuffled

Amount = int | float | Literal["all"]
"""A number of images, a share of them in (0, 1], or ``all``."""


def select(
    defects: DataFrame, real: Amount, per_type: int | None, seed: int, source: str, per_object: int | None = None
) -> list[str]:
    """Choose defective images at random, object by object where the table knows objects.

    Args:
        defects: Table of the images that there are, with ``image_path``, ``defect_type`` and perhaps ``group``; and
            perhaps ``marked``: images where it is false, whose mask says nothing, are chosen last.
        real: How many to choose, if ``per_type`` is not given.
        per_type: How many of each type. An image of several types counts for each of them, so that there may be more of
            a type that goes along with another, but never fewer.
        seed: The same seed chooses the same images, and with a larger number the same and more.
        source: Where they come from, for the message.
        per_object: At most so many of each object; by default all. Without ``group`` each image is an object.

    Returns:
        Paths of the images.

    Raises:
        InvalidInputError: There are fewer than asked for, or the amount cannot be.
    """
    order = _shuffled(defects, seed)
    if per_object is not None and per_object < 1:
        msg = f"per_object is {per_object}; it must be 1 or more"
        raise InvalidInputError(msg)
    if per_object is not None and "group" in order:
        order = order[order.groupby("group").cumcount() < per_object]
        source += f", {per_object} of an object,"
    if per_type is None:
        return list(order.image_path.iloc[: _count(real, len(order), source)])
    if real:
        msg = f"real is {real} and per_type is {per_type}: give one of them"
        raise InvalidInputError(msg)
    return _of_each_type(order, per_type, source)


def _shuffled(defects: DataFrame, seed: int) -> DataFrame:
    """Shuffle such that the same images are chosen whether those without a mask are among them or not."""
    if "marked" not in defects:
        return shuffled(defects, seed)
    return pd.concat([shuffled(part, seed) for part in (defects[defects.marked], defects[~defects.marked])])


def _count(real: Amount, available: int, source: str) -> int:
    if real == "all":
        return available
    if isinstance(real, float):
        if not 0 < real <= 1:
            msg = f"real is {real}: give a number of images, a share of them in (0, 1], or 'all'"
            raise InvalidInputError(msg)
        return round(real * available)
    if not isinstance(real, int) or not 0 <= real <= available:
        msg = f"real is {real}, but {source} has {available} defective images to give; ask for 0 to {available}"
        raise InvalidInputError(msg)
    return real


def _of_each_type(order: DataFrame, per_type: int, source: str) -> list[str]:
    """Take the rarest type first: its images may count for the others."""
    if per_type < 1:
        msg = f"per_type is {per_type}; it must be 1 or more"
        raise InvalidInputError(msg)
    images: dict[str, list[str]] = {}
    for path, types in zip(order.image_path, order.defect_type, strict=True):
        for kind in split_types(types):
            images.setdefault(kind, []).append(path)
    chosen: dict[str, None] = {}
    for kind in sorted(images, key=lambda kind: (len(images[kind]), kind)):
        if len(images[kind]) < per_type:
            msg = f"per_type is {per_type}, but {source} has {len(images[kind])} images of type {kind!r} to give"
            raise InvalidInputError(msg)
        missing = per_type - sum(path in chosen for path in images[kind])
        chosen.update(dict.fromkeys([path for path in images[kind] if path not in chosen][: max(0, missing)]))
    return list(chosen)
