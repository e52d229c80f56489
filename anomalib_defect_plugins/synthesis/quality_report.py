"""How good synthetic defects are: a report on folders that ``anomalib-defects synthesize`` has made."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.contact_sheet import Thumbnail, contact_sheet, make_thumbnail, save_sheet
from anomalib_defect_plugins.data.dataclasses import split_types
from anomalib_defect_plugins.data.summary import datasets_of, list_images
from anomalib_defect_plugins.metrics.features import Extractor
from anomalib_defect_plugins.metrics.synthesis import (
    NEIGHBOURS,
    Nearest,
    frechet_distance,
    nearest,
    nearest_other,
    precision_recall,
)
from anomalib_defect_plugins.synthesis.folder import normal_images, read_table, synthetic_defects

HALVINGS = 5
"""So many random halves of the real images are compared with the other half."""

LEAST = 2 * (NEIGHBOURS + 1)
"""So many real images there must be."""

ON_SHEET = 8
"""Synthetic images of a category on its contact sheet."""

COPY = 0.01
"""A synthetic image is called a copy if it is nearer to a real one than this share of the real images are."""

NOTES = f"""\
`distance` is the {{measure}} between all real and all synthetic images. It shrinks with their number, so `distance of
halves` compares a random half of the real images with as many others ({HALVINGS} times, the mean); in the row `real`
these are the other half, which is as close as one can get, and in the row `normal` images without a defect, which is
what a synthesiser that does nothing would reach. Precision and recall (k = {NEIGHBOURS}) are of equal numbers of
images. `nearest` is the median distance of an image's features to the nearest real image's, another one in the row
`real`; `copies` is the share that is nearer than all but {COPY:.0%} of the real images are to each other. Real images
are resized to the size of the synthetic ones first.
"""


@dataclass(frozen=True)
class Described:
    """Images and what an extractor says of them."""

    images: Sequence[tuple[AnomalibDataset, int]]
    """Data set and row in it."""
    types: list[str]
    """Defect type of each."""
    features: np.ndarray
    """(N, D)."""

    def of(self, category: str | None) -> np.ndarray:
        """Give the features of the images that show a category; of all for ``None``."""
        return self.features[[category is None or category in split_types(name) for name in self.types]]

    def path(self, row: int) -> str:
        """Give the file of an image."""
        dataset, index = self.images[row]
        return str(dataset.samples.image_path.iloc[index])

    def thumbnail(self, row: int) -> Thumbnail:
        """Give an image and its mask for a contact sheet."""
        dataset, index = self.images[row]
        return make_thumbnail(dataset[index])


def report(
    folders: Mapping[str, Path], datamodule: AnomalibDataModule, out: Path, extractor: Extractor, seed: int = 0
) -> Path:
    """Compare synthetic defects with real ones.

    Args:
        folders: Folders of synthetic images of one size, by the name that the report is to call them.
        datamodule: Has the real defective images, in any split; set up. The augmentations are taken away.
        out: Folder for ``report.md``, ``report.json``, the nearest real image of each synthetic one (CSV), and a
            contact sheet of each folder and category; files of these names are replaced.
        extractor: What describes the images.
        seed: Seed of what is drawn at random.

    Returns:
        Path of ``report.md``.

    Raises:
        UserError: A folder holds no synthetic images, there are too few real ones, or nothing can be written.
    """
    defects = {name: synthetic_defects(root) for name, root in folders.items()}
    tables = {name: _table(root, defects[name]) for name, root in folders.items()}
    size = _common_size(defects)
    real = _describe(_real_defects(datamodule), size, extractor, "real images")
    sets = {name: _describe(_rows(dataset), size, extractor, name) for name, dataset in defects.items()}
    normal = _describe(_rows(normal_images(next(iter(folders.values())))), size, extractor, "normal images")
    found = {
        "data": datamodule.name,
        "extractor": extractor.name,
        "measure": extractor.measure,
        "image_size": list(size),
        "figures": list(_figures(real, normal, sets, tables, seed)),
    }
    _new_folder(out)
    for name, part in sets.items():
        closest = nearest(part.features, real.features)
        _write(out / f"nearest-{name}.csv", _nearest_table(part, real, closest).to_csv(index=False))
        for category, sheet in _sheets(folders[name], tables[name], part, real, closest):
            save_sheet(sheet, out / f"{name}-{category}.png")
    _write(out / "report.json", json.dumps(found, indent=2))
    _write(out / "report.md", markdown(found))
    return out / "report.md"


# Images


def _common_size(datasets: Mapping[str, AnomalibDataset]) -> tuple[int, int]:
    sizes = {name: tuple(dataset[0].image.shape[-2:]) for name, dataset in datasets.items()}
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{name} {width}x{height}" for name, (height, width) in sizes.items())
        msg = f"the folders have images of different sizes ({given}); compare those of one size"
        raise InvalidInputError(msg)
    return next(iter(sizes.values()))


def _table(root: Path, dataset: AnomalibDataset) -> pd.DataFrame:
    """Give the table of a folder in the order of its data set, which sorts by file."""
    names = [Path(path).relative_to(root).as_posix() for path in dataset.samples.image_path]
    return read_table(root).set_index("image").loc[names].reset_index()


def _rows(dataset: AnomalibDataset) -> list[tuple[AnomalibDataset, int, str]]:
    return [(dataset, row, name) for row, name in enumerate(dataset.samples.defect_type)]


def _real_defects(datamodule: AnomalibDataModule) -> list[tuple[AnomalibDataset, int, str]]:
    """Give the defective images of all splits, with their types; each once."""
    datasets = datasets_of(datamodule)
    for dataset in datasets.values():
        dataset.augmentations = None
    images = [
        (datasets[image.splits[0]], int(image.row), image.defect_type) for image in list_images(datasets).itertuples()
    ]
    found = [image for image in images if image[0].samples.label_index.iloc[image[1]] == LabelName.ABNORMAL]
    if len(found) < LEAST:
        msg = f"{datamodule.name} has {len(found)} defective images, too few to compare with; give {LEAST} or more"
        raise InvalidInputError(msg)
    return found


def _describe(
    images: list[tuple[AnomalibDataset, int, str]], size: tuple[int, int], extractor: Extractor, what: str
) -> Described:
    console = Console(stderr=True)
    options = {"console": console, "transient": True, "disable": not console.is_terminal}
    shown = track(images, f"describing {what}", **options)
    features = extractor(_resized(dataset[row].image.as_subclass(Tensor), size) for dataset, row, _ in shown)
    return Described([image[:2] for image in images], [image[2] for image in images], features)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(image, list(size), InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)


# Figures


def _figures(
    real: Described, normal: Described, sets: Mapping[str, Described], tables: Mapping[str, pd.DataFrame], seed: int
) -> Iterator[dict[str, Any]]:
    """Give the rows of the report: all categories together, then each, with the real and the normal images first."""
    for category in (None, *sorted({name for types in real.types for name in split_types(types)})):
        features = real.of(category)
        yield {"category": category, "set": "real", **_compare(features, None, seed)}
        yield {"category": category, "set": "normal", **_compare(features, normal.features, seed)}
        for name, part in sets.items():
            rows = np.array([category is None or category in split_types(types) for types in part.types])
            if rows.any():
                table = tables[name][rows]
                maps = {"mean_map": float(table.mean_map.mean()), "defect_share": float(table.defect_share.mean())}
                yield {"category": category, "set": name, **_compare(features, part.of(category), seed), **maps}


def _compare(real: np.ndarray, others: np.ndarray | None, seed: int) -> dict[str, Any]:
    """Give the figures of a set; of the real images themselves for ``None``. Those of too few images are left out."""
    rng = np.random.default_rng(seed)
    own = others is None
    others = real if own else others
    found: dict[str, Any] = {"images": len(others)}
    if min(len(real), len(others)) >= LEAST:
        found |= _distance_of_halves(real, None if own else others, rng)
        if not own:
            found |= {"distance": frechet_distance(real, others), **_coverage(real, others, rng)}
    if len(real) > 1:
        usual = nearest_other(real).distance
        distances = usual if own else nearest(others, real).distance
        found["nearest"] = float(np.median(distances))
        found["copies"] = float((distances < np.quantile(usual, COPY)).mean())
    return found


def _distance_of_halves(real: np.ndarray, others: np.ndarray | None, rng: np.random.Generator) -> dict[str, Any]:
    """Compare halves of the real images with as many others, or with the other half for ``None``."""
    half = len(real) // 2
    if others is not None and len(others) < half:
        return {}
    distances = []
    for _ in range(HALVINGS):
        order = rng.permutation(len(real))
        second = real[order[half : 2 * half]] if others is None else others[rng.permutation(len(others))[:half]]
        distances.append(frechet_distance(real[order[:half]], second))
    return {"distance_of_halves": float(np.mean(distances)), "half": half}


def _coverage(real: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    count = min(len(real), len(others))
    parts = (features[rng.permutation(len(features))[:count]] for features in (real, others))
    return precision_recall(*parts)._asdict()


def _nearest_table(part: Described, real: Described, closest: Nearest) -> pd.DataFrame:
    rows = range(len(part.types))
    return pd.DataFrame(
        {
            "image": [part.path(row) for row in rows],
            "category": part.types,
            "nearest": [real.path(row) for row in closest.row],
            "nearest_category": [real.types[row] for row in closest.row],
            "distance": closest.distance,
        }
    )


# Output


def _sheets(
    root: Path, table: pd.DataFrame, part: Described, real: Described, closest: Nearest
) -> Iterator[tuple[str, Image.Image]]:
    """Draw for each category normal images, the synthetic ones made of them, and the real ones nearest to these."""
    for category in sorted(set(table.category)):
        rows = np.flatnonzero(table.category == category)
        rows = rows[np.linspace(0, len(rows) - 1, min(ON_SHEET, len(rows))).round().astype(int)]
        normal = normal_images(root)
        at = {Path(path).name: row for row, path in enumerate(normal.samples.image_path)}
        groups = [
            (
                "normal",
                [make_thumbnail(normal[at[Path(table.normal.iloc[row]).name]])._replace(mask=None) for row in rows],
            ),
            (category, [part.thumbnail(row) for row in rows]),
            ("nearest real", [real.thumbnail(closest.row[row]) for row in rows]),
        ]
        yield category, contact_sheet(groups)


HEADINGS = {
    "set": "set",
    "images": "images",
    "distance": "distance",
    "distance_of_halves": "distance of halves",
    "half": "(images)",
    "precision": "precision",
    "recall": "recall",
    "nearest": "nearest",
    "copies": "copies",
    "mean_map": "mean of the map",
    "defect_share": "defect pixels",
}


def markdown(found: Mapping[str, Any]) -> str:
    """Write the report.

    Args:
        found: What ``report.json`` holds.
    """
    size = "x".join(map(str, found["image_size"][::-1]))
    lines = [
        f"# Synthetic defects beside those of {found['data']}, {size} pixels",
        "",
        f"Distance: {found['measure']}.",
    ]
    categories = list(dict.fromkeys(row["category"] for row in found["figures"]))
    for category in categories:
        rows = [row for row in found["figures"] if row["category"] == category]
        lines += ["", f"## {category or 'All categories'}", "", "| " + " | ".join(HEADINGS.values()) + " |"]
        lines += ["|" + "---|" * len(HEADINGS)]
        lines += ["| " + " | ".join(_cell(row.get(key)) for key in HEADINGS) + " |" for row in rows]
    return "\n".join([*lines, "", NOTES.format(measure=found["measure"])])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _new_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write to {path} ({error.strerror}); give another folder for the report"
        raise InvalidInputError(msg) from error


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        msg = f"cannot write {path} ({error.strerror}); make room, or give another folder"
        raise InvalidInputError(msg) from error
