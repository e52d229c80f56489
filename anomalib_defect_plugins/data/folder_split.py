"""Training and test split of user data, with all images of one object on one side."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anomalib.data.utils import Split

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.faults import Faults
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.sample_table import Sample, by_label, make_table, shuffled

logger = logging.getLogger(__name__)

TAIL = re.compile(r"(.*\d.*?)[ _.-]+(?:[a-z]{0,8}[_-]?\d{1,3}|[a-z]|left|right|top|bottom|front|back)", re.IGNORECASE)
"""Stems of one of several images of an object, such as ``part012_view3``: what they share, and a short ending."""

MIN_SHARE_GROUPED = 0.8
"""Share of the images that have to be in groups of several images for a warning."""


class FolderSplit(NamedTuple):
    """A split.

    Args:
        train: Training images: normal ones, or defective ones with masks if there are no normal ones.
        train_defects: Defective images of the training split, for ``WithDefects``.
        test: Test images.
    """

    train: list[Sample]
    train_defects: list[Sample]
    test: list[Sample]


def split_samples(samples: Sequence[Sample], ratio: float, seed: int) -> FolderSplit:
    """Split images.

    A fixed split is kept. Otherwise the test split has all defective images and a random share of the normal ones.
    Normal images of an object with a defect are tested on, unless all objects have one. Without normal images, the
    training split has defective ones, those with masks if any has one.

    Args:
        samples: Images; ``split`` is empty if there is no fixed one, ``group`` is the object, if known.
        ratio: Share of the images of the test split, in [0, 1), of those that may be in either.
        seed: Seed of the split.

    Raises:
        InvalidInputError: If there is nothing to train on.
    """
    if samples[0].split:
        train = [sample for sample in samples if sample.split == Split.TRAIN]
        return _checked(train, [sample for sample in samples if sample.split != Split.TRAIN])
    normal, defective = by_label(samples)
    if not normal:
        return _checked(*_split_defects(defective, ratio, seed))
    with_defect = {sample.group for sample in defective} - {""}
    apart = [sample for sample in normal if sample.group not in with_defect]
    if apart:
        train, drawn = _draw(apart, ratio, seed)
        return _checked(train, [*drawn, *(s for s in normal if s.group in with_defect), *defective])
    return _checked(*_draw(samples, ratio, seed))


def _split_defects(samples: Sequence[Sample], ratio: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split defective images: those with masks, if there are any, type by type unless objects are known."""
    usable = [sample for sample in samples if sample.mask_path] or list(samples)
    grouped = any(sample.group for sample in samples)
    types = [usable] if grouped else [[s for s in usable if s.defect_type == t] for t in _types(usable)]
    train: list[Sample] = []
    for images in types:
        # At least one image of a type is tested on.
        count = max(round(ratio * len(images)), 1 if len(images) > 1 else 0)
        train += _draw(images, count / len(images), seed)[0]
    kept = {sample.image_path for sample in train}
    groups = {sample.group for sample in train} - {""}
    return train, [s for s in samples if s.image_path not in kept and s.group not in groups]


def _types(samples: Sequence[Sample]) -> list[str]:
    return sorted({sample.defect_type for sample in samples})


def _draw(samples: Sequence[Sample], ratio: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Draw a share of the images, group by group; at least one image or group is left."""
    table = shuffled(make_table(samples), seed)
    count = min(round(ratio * len(table)), len(table) - 1)
    drawn = list(table.image_path[:count])
    if "group" in table:
        groups = list(dict.fromkeys(table.group))
        taken = set(table.group[:count]) - set(groups[-1:])
        drawn = list(table.image_path[table.group.isin(taken)])
    by_path = {sample.image_path: sample for sample in samples}
    order, inside = list(table.image_path), set(drawn)
    return [by_path[path] for path in order if path not in inside], [by_path[path] for path in drawn]


def _checked(train: Sequence[Sample], test: Sequence[Sample]) -> FolderSplit:
    normal, defective = by_label(train)
    if not normal and any(sample.mask_path for sample in defective):
        defective = [sample for sample in defective if sample.mask_path]
    if not normal and not defective:
        msg = "there is no image to train on: add normal images, or defective ones with masks"
        raise InvalidInputError(msg)
    of_split = [sample._replace(split=Split.TRAIN.value) for sample in normal or defective]
    defects = [sample._replace(split=Split.TRAIN.value) for sample in defective] if normal else []
    return FolderSplit(of_split, defects, [sample._replace(split=Split.TEST.value) for sample in test])


def with_groups(samples: Sequence[Sample], pattern: str, faults: Faults) -> list[Sample]:
    """Add the object that each image shows, which its file name tells.

    Args:
        samples: The images.
        pattern: Regular expression that is searched in the file name; the object is its first group, or the whole
            match if it has none.
        faults: Gets an error for the images whose names do not match, and for each object in two fixed splits.

    Raises:
        InvalidInputError: If the pattern is invalid.
    """
    matches = [(sample, compile_groups(pattern).search(Path(sample.image_path).name)) for sample in samples]
    grouped = [sample._replace(group=_group(match)) for sample, match in matches if match]
    missing = [sample.image_path for sample, match in matches if match is None]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        msg = f"the name of image {missing[0]}{more}, does not match group_by {pattern!r}; change the pattern"
        faults.add(InvalidInputError(msg))
    first: dict[str, Sample] = {}
    for sample in grouped:
        other = first.setdefault(sample.group, sample)
        if other.split != sample.split:
            msg = f"{other.image_path} and {sample.image_path} show one object ({sample.group!r}), but are in "
            faults.add(InvalidInputError(msg + f"{other.split} and {sample.split}; move one, or change group_by"))
            first[sample.group] = sample
    return grouped


def compile_groups(pattern: str) -> re.Pattern[str]:
    """Compile the pattern of ``group_by``.

    Raises:
        InvalidInputError: If it is no regular expression.
    """
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        msg = f"group_by is {pattern!r}, which is no regular expression ({error}); use one such as '(part\\d+)_'"
        raise InvalidInputError(msg) from error


def _group(match: re.Match[str]) -> str:
    group: str | None = match[1] if match.re.groups else match[0]
    # An empty object would be none.
    return group or match.string


def warn_of_groups(samples: Sequence[Sample]) -> None:
    """Warn if names of files suggest that several images show one object, and may be in different splits."""
    stems = [Path(sample.image_path).stem for sample in samples]
    matches = [match for stem in stems if (match := TAIL.fullmatch(stem))]
    counts = Counter(match[1] for match in matches)
    endings = {match[0][len(match[1]) :] for match in matches}
    several = [name for name, count in counts.items() if count > 1]
    share = sum(counts[name] for name in several) / len(stems)
    # Endings of views and tiles repeat for each object, unlike numbers or seconds.
    if len(several) > 1 and share >= MIN_SHARE_GROUPED and len(endings) <= 2 * max(counts.values()):
        example = next(sample.image_path for sample in samples if Path(sample.image_path).stem.startswith(several[0]))
        logger.warning(
            "names such as %s suggest that several images show one object: if so, pass --data.group_by with a pattern "
            "of the object's name, such as '%s', so that no object is in two splits",
            Path(example).name,
            re.sub(r"\d+", lambda _: r"\d+", re.escape(several[0])),
        )


def warn_of_missing(samples: Sequence[Sample]) -> None:
    """Warn of defective images without a mask where others have one, and of data without normal images."""
    normal, defective = by_label(samples)
    without = [sample.image_path for sample in defective if not sample.mask_path]
    if without and len(without) < len(defective):
        logger.warning(
            "%d of %d defective images have no mask, the first is %s: they count in metrics of images, not of pixels, "
            "and train models of image labels only (--data.masks false)",
            len(without),
            len(defective),
            without[0],
        )
    if not normal:
        logger.warning(
            "there are no normal images: all %d count as defective (%s); pass --data.normal_dir if one of these "
            "folders is normal",
            len(defective),
            ", ".join(sorted({sample.defect_type for sample in defective if sample.defect_type != GOOD})[:8]),
        )
