"""Report on the quality of synthetic defects in folders that ``anomalib-defects synthesize`` has written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageItem
from anomalib.data.utils import LabelName
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import write_text
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.text import counted
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

Features = npt.NDArray[np.floating[Any]]
"""Features of images, shape (N, D)."""

HALVINGS = 5
"""Random halvings of the real images that are averaged."""

MIN_REAL_IMAGES = 2 * (NEIGHBOURS + 1)
"""Minimum number of real images for distances and coverage."""

SHEET_IMAGES = 8
"""Synthetic images of a category on its contact sheet."""

COPY_QUANTILE = 0.01
"""A synthetic image counts as a copy if it is nearer to a real one than this quantile of the real images are."""

NOTES = f"""\
`distance` is the {{measure}} between all real and all synthetic images. It decreases with the number of images, so
`distance of halves` compares a random half of the real images with as many others (mean of {HALVINGS} halvings); in
the row `real` these are the other half, a lower bound, and in the row `normal` images without a defect, the result of
a synthesiser that does nothing. Precision and recall (k = {NEIGHBOURS}) compare equal numbers of images. `nearest` is
the median distance of an image's features to those of the nearest real image, another one in the row `real`; `copies`
is the share of images that are nearer than all but {COPY_QUANTILE:.0%} of the real images are to each other. Real
images are resized to the size of the synthetic ones first.
"""


@dataclass(frozen=True)
class ImageSet:
    """Images and their features.

    Args:
        images: Data set and row of each image.
        types: Defect type of each image.
        features: Features, shape (N, D).
    """

    images: Sequence[tuple[AnomalibDataset, int]]
    types: list[str]
    features: Features

    def features_of(self, category: str | None) -> Features:
        """Return the features of the images with a category, or of all for ``None``."""
        return self.features[[category is None or category in split_types(name) for name in self.types]]

    def path(self, index: int) -> str:
        """Return the file of an image."""
        dataset, row = self.images[index]
        return str(dataset.samples.image_path.iloc[row])

    def thumbnail(self, index: int) -> Thumbnail:
        """Return a thumbnail of an image and its mask."""
        dataset, row = self.images[index]
        return make_thumbnail(cast(ImageItem, dataset[row]))


def write_quality_report(
    folders: Mapping[str, Path], datamodule: AnomalibDataModule, out: Path, extractor: Extractor, seed: int = 0
) -> Path:
    """Compare synthetic defects with real ones.

    Args:
        folders: Folders of synthetic images of one size, by their name in the report.
        datamodule: Data module with the real defective images, in any split; set up. Its augmentations are removed.
        out: Folder for ``report.md``, ``report.json``, the nearest real image of each synthetic one (CSV), and a
            contact sheet of each folder and category; existing files are replaced.
        extractor: Feature extractor.
        seed: Random seed.

    Returns:
        Path of ``report.md``.

    Raises:
        UserError: If a folder has no synthetic images, there are too few real ones, or the report cannot be written.
    """
    defects = {name: synthetic_defects(root) for name, root in folders.items()}
    tables = {name: _sorted_table(root, defects[name]) for name, root in folders.items()}
    size = _common_size(defects)
    real = _extract(_real_defects(datamodule), size, extractor, "real images")
    sets = {name: _extract(_all_images(dataset), size, extractor, name) for name, dataset in defects.items()}
    normal = _extract(_all_images(normal_images(next(iter(folders.values())))), size, extractor, "normal images")
    content = {
        "data": datamodule.name,
        "extractor": extractor.name,
        "measure": extractor.measure,
        "image_size": list(size),
        "figures": list(_metrics(real, normal, sets, tables, seed)),
    }
    _create_folder(out)
    for name, synthetic in sets.items():
        closest = nearest(synthetic.features, real.features)
        _write(out / f"nearest-{name}.csv", _nearest_table(synthetic, real, closest).to_csv(index=False))
        for category, sheet in _contact_sheets(folders[name], tables[name], synthetic, real, closest):
            save_sheet(sheet, out / f"{name}-{category}.png")
    _write(out / "report.json", json.dumps(content, indent=2))
    _write(out / "report.md", to_markdown(content))
    return out / "report.md"


# Images


def _common_size(datasets: Mapping[str, AnomalibDataset]) -> Size:
    sizes = {name: cast(Tensor, dataset[0].image).shape[-2:] for name, dataset in datasets.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {width}x{height}" for name, (height, width) in sizes.items())
        msg = f"the folders have images of different sizes ({listed}); compare folders of one size"
        raise InvalidInputError(msg)
    height, width = next(iter(sizes.values()))
    return height, width


def _sorted_table(root: Path, dataset: AnomalibDataset) -> pd.DataFrame:
    """Return the table of a folder in the order of its data set, which sorts by file."""
    names = [Path(path).relative_to(root).as_posix() for path in dataset.samples.image_path]
    return read_table(root).set_index("image").loc[names].reset_index()


def _all_images(dataset: AnomalibDataset) -> list[tuple[AnomalibDataset, int, str]]:
    return [(dataset, row, name) for row, name in enumerate(dataset.samples.defect_type)]


def _real_defects(datamodule: AnomalibDataModule) -> list[tuple[AnomalibDataset, int, str]]:
    """Return data set, row and type of the defective images of all splits, each once."""
    datasets = datasets_of(datamodule)
    for dataset in datasets.values():
        dataset.augmentations = None
    images = [
        (datasets[image.splits[0]], int(image.row), image.defect_type) for image in list_images(datasets).itertuples()
    ]
    defective = [image for image in images if image[0].samples.label_index.iloc[image[1]] == LabelName.ABNORMAL]
    if len(defective) < MIN_REAL_IMAGES:
        found = counted(len(defective), "defective image")
        msg = f"{datamodule.name} has {found}, too few to compare with; use data with {MIN_REAL_IMAGES} or more"
        raise InvalidInputError(msg)
    return defective


def _extract(images: list[tuple[AnomalibDataset, int, str]], size: Size, extractor: Extractor, what: str) -> ImageSet:
    """Extract the features of images, with a progress bar on standard error."""
    console = Console(stderr=True)
    shown = track(images, f"describing {what}", console=console, transient=True, disable=not console.is_terminal)
    features = extractor(_resize(cast(Tensor, dataset[row].image), size) for dataset, row, _ in shown)
    return ImageSet([(dataset, row) for dataset, row, _ in images], [name for _, _, name in images], features)


def _resize(image: Tensor, size: Size) -> Tensor:
    resized: Tensor = resize(image.as_subclass(Tensor), list(size), InterpolationMode.BICUBIC, antialias=True)
    return resized.clamp(0, 1)


# Metrics


def _metrics(
    real: ImageSet, normal: ImageSet, sets: Mapping[str, ImageSet], tables: Mapping[str, pd.DataFrame], seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the report: all categories together, then each; real and normal images first."""
    for category in (None, *sorted({name for types in real.types for name in split_types(types)})):
        features = real.features_of(category)
        yield {"category": category, "set": "real", **_compare(features, None, seed)}
        yield {"category": category, "set": "normal", **_compare(features, normal.features, seed)}
        for name, synthetic in sets.items():
            selected = np.array([category is None or category in split_types(types) for types in synthetic.types])
            if selected.any():
                table = tables[name][selected]
                maps = {"mean_map": float(table.mean_map.mean()), "defect_share": float(table.defect_share.mean())}
                metrics = _compare(features, synthetic.features_of(category), seed)
                yield {"category": category, "set": name, **metrics, **maps}


def _compare(real: Features, others: Features | None, seed: int) -> dict[str, Any]:
    """Compute the metrics of a set, or of the real images for ``None``; those that need more images are left out."""
    rng = np.random.default_rng(seed)
    features = real if others is None else others
    metrics: dict[str, Any] = {"images": len(features)}
    if min(len(real), len(features)) >= MIN_REAL_IMAGES:
        metrics |= _distance_of_halves(real, others, rng)
        if others is not None:
            metrics |= {"distance": frechet_distance(real, others), **_coverage(real, others, rng)}
    if len(real) > 1:
        between_real = nearest_other(real).distance
        distances = between_real if others is None else nearest(others, real).distance
        metrics["nearest"] = float(np.median(distances))
        metrics["copies"] = float((distances < np.quantile(between_real, COPY_QUANTILE)).mean())
    return metrics


def _distance_of_halves(real: Features, others: Features | None, rng: np.random.Generator) -> dict[str, Any]:
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


def _coverage(real: Features, others: Features, rng: np.random.Generator) -> dict[str, float]:
    """Compute precision and recall of equal numbers of images."""
    count = min(len(real), len(others))
    first, second = (features[rng.permutation(len(features))[:count]] for features in (real, others))
    return precision_recall(first, second)._asdict()


def _nearest_table(synthetic: ImageSet, real: ImageSet, closest: Nearest) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [synthetic.path(index) for index in range(len(synthetic.types))],
            "category": synthetic.types,
            "nearest": [real.path(index) for index in closest.row],
            "nearest_category": [real.types[index] for index in closest.row],
            "distance": closest.distance,
        }
    )


# Output


def _contact_sheets(
    root: Path, table: pd.DataFrame, synthetic: ImageSet, real: ImageSet, closest: Nearest
) -> Iterator[tuple[str, Image.Image]]:
    """Draw for each category normal images, the synthetic ones made of them, and the nearest real ones."""
    normal = normal_images(root)
    row_of = {Path(path).name: row for row, path in enumerate(normal.samples.image_path)}
    for category in sorted(set(table.category)):
        rows = np.flatnonzero(table.category == category)
        rows = rows[np.linspace(0, len(rows) - 1, min(SHEET_IMAGES, len(rows))).round().astype(int)]
        sources = [normal[row_of[Path(table.normal.iloc[row]).name]] for row in rows]
        yield (
            category,
            contact_sheet(
                [
                    ("normal", [make_thumbnail(source)._replace(mask=None) for source in sources]),
                    (category, [synthetic.thumbnail(row) for row in rows]),
                    ("nearest real", [real.thumbnail(closest.row[row]) for row in rows]),
                ]
            ),
        )


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
"""Column titles of the report."""


def to_markdown(content: Mapping[str, Any]) -> str:
    """Format the report as Markdown.

    Args:
        content: Content of ``report.json``.
    """
    size = "x".join(map(str, content["image_size"][::-1]))
    lines = [
        f"# Synthetic defects beside those of {content['data']}, {size} pixels",
        "",
        f"Distance: {content['measure']}.",
    ]
    for category in dict.fromkeys(row["category"] for row in content["figures"]):
        rows = [row for row in content["figures"] if row["category"] == category]
        lines += ["", f"## {category or 'All categories'}", "", "| " + " | ".join(HEADINGS.values()) + " |"]
        lines += ["|" + "---|" * len(HEADINGS)]
        lines += ["| " + " | ".join(_format_cell(row.get(key)) for key in HEADINGS) + " |" for row in rows]
    return "\n".join([*lines, "", NOTES.format(measure=content["measure"])])


def _format_cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _create_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write to {path} ({error.strerror}); choose another folder for the report"
        raise InvalidInputError(msg) from error


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        msg = f"cannot write {path} ({error.strerror}); free space, or choose another folder"
        raise InvalidInputError(msg) from error
