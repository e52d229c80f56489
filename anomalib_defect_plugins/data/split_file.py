"""A split as a CSV file that names the images of each subset."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
from pandas import DataFrame

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.files import atomic_path

COLUMNS = ["split", "image", "label", "defect_type"]
SPLITS = ("train", "val", "test")

SPLIT_FILE = "split.csv"
"""Name of the file beside the results of a training."""


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


def read_split(path: Path, images: Iterable[str], samples: DataFrame | None = None) -> dict[str, set[str]]:
    """Read a split.

    A byte order mark, blank lines and the separators of Windows are accepted.

    Args:
        path: File written by :func:`write_split`.
        images: Paths of all images that the split may name.
        samples: Table with the columns ``image_path``, ``label_index`` and ``defect_type``, which the file has to agree
            with.

    Returns:
        Image paths by name of the split; one without images is left out.

    Raises:
        MissingDataError: If the file, or an image that it names, does not exist.
        InvalidInputError: If the file is not a split, has no training images, names an image in two splits (unless
            validation and test images are the same), or disagrees with ``samples``.
    """
    table = _read_table(path)
    table["path"] = _find_images(path, table.image, list(images))
    split = {name: set(rows.path) for name, rows in table.groupby("split")}
    _check_splits(path, table, split)
    if samples is not None:
        _check_labels(path, table, samples)
    return split


def count_trained(path: Path, images: Iterable[str]) -> int:
    """Return how many images a split file lists as training images, by the ends of their paths.

    Args:
        path: File written by :func:`write_split`.
        images: Paths of images.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If the file is not a split.
    """
    table = _read_table(path)
    trained = {PurePosixPath(name.replace("\\", "/")).parts for name in table.image[table.split == "train"]}
    lengths = set(map(len, trained))
    return sum(any(Path(image).parts[-length:] in trained for length in lengths) for image in images)


def _read_table(path: Path) -> DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)[COLUMNS]
    except FileNotFoundError as error:
        msg = f"split file {path} does not exist; choose a split.csv from the results of a run"
        raise MissingDataError(msg) from error
    except (KeyError, ValueError, OSError) as error:
        msg = f"{path} is not a split file ({' '.join(str(error).split())}); choose one from the results of a run"
        raise InvalidInputError(msg) from error
    # A line that is cut off, or has only separators, has missing values.
    table = table.fillna("").apply(lambda column: column.str.strip())
    return table[(table != "").any(axis=1)].reset_index(drop=True)


def _find_images(path: Path, names: Iterable[str], images: Sequence[str]) -> list[str]:
    """Find the images by their names: relative to the common folder, or else by the end of their paths."""
    root = _common_folder(images)
    known = {_relative(image, root): image for image in images}
    tails: dict[int, dict[str, list[str]]] = {}
    found = []
    for name in names:
        image = known.get(name) or _by_tail(name.replace("\\", "/"), images, tails)
        if image is None:
            msg = f"split file {path} names {name}, which the data does not have; use the data of its run"
            raise MissingDataError(msg)
        found.append(image)
    return found


def _by_tail(name: str, images: Sequence[str], tails: dict[int, dict[str, list[str]]]) -> str | None:
    """Find the only image whose path ends with a name; the common folder may have changed with the images.

    Args:
        name: Name with the separator ``/``.
        images: Paths of the images.
        tails: Paths by the last parts of them and the number of these parts, filled as needed.
    """
    parts = PurePosixPath(name).parts
    if len(parts) not in tails:
        tails[len(parts)] = defaultdict(list)
        for image in images:
            tails[len(parts)]["/".join(Path(image).resolve().parts[-len(parts) :])].append(image)
    found = tails[len(parts)].get("/".join(parts), [])
    return found[0] if len(found) == 1 else None


def _check_splits(path: Path, table: DataFrame, split: Mapping[str, set[str]]) -> None:
    """Check the names of the splits, and that no image is in two of them."""
    for name in split:
        if name not in SPLITS:
            msg = f"split file {path} has the split {name!r}; use {', '.join(SPLITS)}"
            raise InvalidInputError(msg)
    if not split.get("train"):
        msg = f"split file {path} has no training images; choose one from the results of a run"
        raise InvalidInputError(msg)
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = split.get(one, set()) & split.get(other, set())
        if shared and not (one == "val" and split[one] == split[other]):
            name = table.image[table.path.isin(shared)].iloc[0]
            msg = f"split file {path} has {name} in {one} and {other}; remove it from one of them"
            raise InvalidInputError(msg)


def _check_labels(path: Path, table: DataFrame, samples: DataFrame) -> None:
    """Check that labels and defect types of a file are those of the data."""
    truth = samples.drop_duplicates("image_path").set_index("image_path").loc[table.path]
    labels = truth.label_index.astype(int).astype(str)
    for column, expected in (("label", labels), ("defect_type", truth.defect_type)):
        given = table[column].to_numpy()
        wrong = (given != expected.to_numpy()) & (given != "")
        if wrong.any():
            row = int(wrong.argmax())
            msg = f"split file {path} has the {column} {given[row]!r} for {table.image[row]}, and the data has "
            raise InvalidInputError(msg + f"{expected.iloc[row]!r}; use the data of its run, or correct the file")


def _common_folder(images: Iterable[str]) -> Path:
    return Path(os.path.commonpath([Path(image).resolve().parent for image in images]))


def _relative(image: str, root: Path) -> str:
    return Path(image).resolve().relative_to(root).as_posix()
