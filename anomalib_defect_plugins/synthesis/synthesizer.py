"""Data sets of synthetic defects from a trained model; the work of ``anomalib-defects synthesize``."""

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text
from skimage.filters import threshold_otsu
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.core.defect_generator import VISIBLE
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.core.mask_io import leaves_background, read_mask
from anomalib_defect_plugins.data.dataclasses import SEPARATOR, split_types
from anomalib_defect_plugins.data.dataset import reading
from anomalib_defect_plugins.data.folder_reader import MASKS
from anomalib_defect_plugins.data.stock_datasets import checked
from anomalib_defect_plugins.data.summary import datasets_of
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.synthesis.defect_synthesizer import DefectSynthesizer, load_synthesizer
from anomalib_defect_plugins.synthesis.folder import RESTORED, SyntheticFolder, SyntheticRow, check_folder_name

MAX_ATTEMPTS = 10
"""Normal images that are tried until a usable defect comes out."""

MAX_UNUSABLE = 10
"""Images without a usable defect, and none with one, after which the run stops."""

OTSU = "otsu"
"""Threshold by Otsu's method, computed for each map."""

AS_TRAINED = "as-trained"
"""Category for the sets of types of the model's training images, as often as they occur there."""

UNNAMED_TYPES = {"defect", LabelName.ABNORMAL.name.lower()}
"""Defect types in data without defect types."""


@dataclass(frozen=True)
class SynthesisRequest:
    """Settings of a data set of synthetic defects.

    Args:
        num: Number of images; in a folder that has fewer, the missing ones are added.
        category: Category of the defects, or several joined by ``+``; ``as-trained`` draws the sets of types of the
            model's training images as often as they occur there; by default each category in turn.
        region: Mask of the model's size that marks where defects may be; by default they may be anywhere.
        seed: Random seed. Image i depends only on the seed and i.
        threshold: Threshold of the map m for the mask, in (0, 1); or ``otsu`` to compute it for each map, which helps
            if the maps are not low anywhere, as after a short training.
        max_share: Maximum size of a defect, as a fraction of the image, in (0, 1]. Images with a larger one are drawn
            again, because a map that marks nearly everything has usually collapsed; some types do cover much, though.
        restored: Whether to keep the images with the defect removed again, too.
        keep_all: Whether to keep the first image of each attempt, also if its defect is not visible or covers more than
            ``max_share``: what the model makes, without a selection, as figures of the paper count it. Such images have
            no mask.

    Raises:
        InvalidInputError: If a number is invalid.
    """

    num: int = 500
    category: str | None = None
    region: Path | None = None
    seed: int = 0
    threshold: float | Literal["otsu"] = 0.5
    max_share: float = 0.5
    restored: bool = False
    keep_all: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.num < 1:
            msg = f"--num is {self.num}; it must be 1 or more"
            raise InvalidInputError(msg)
        if self.seed < 0:
            msg = f"--seed is {self.seed}; it must be 0 or more"
            raise InvalidInputError(msg)
        if self.threshold != OTSU and not (isinstance(self.threshold, float) and 0 < self.threshold < 1):
            msg = f"--threshold is {self.threshold}; it must be more than 0 and less than 1, or {OTSU}"
            raise InvalidInputError(msg)
        if not 0 < self.max_share <= 1:
            msg = f"--max-share is {self.max_share}; it must be more than 0, and 1 or less"
            raise InvalidInputError(msg)


def synthesize(
    checkpoint: Path, datamodule: AnomalibDataModule, out: Path, request: SynthesisRequest, device: str | None = None
) -> list[SyntheticRow]:
    """Put defects on normal training images and write a data set, with a progress bar on standard error.

    The images that an interrupted run has finished are kept.

    Args:
        checkpoint: Checkpoint of a model that synthesizes defects.
        datamodule: Data module that is set up. The augmentations of its training set are removed.
        out: Folder to write to: new, empty, or started with the same settings; see ``SyntheticFolder``.
        request: Settings.
        device: Device of the model; by default a GPU if there is one.

    Returns:
        Rows of the requested images, in order; see ``COLUMNS``.

    Raises:
        MissingDataError: If the checkpoint or the region mask does not exist.
        InvalidInputError: If a file or an argument is invalid, or the folder is in use or not writable.
        ConfigurationError: If the checkpoint does not fit the data.
    """
    model = load_synthesizer(checkpoint, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _check_data(model, datamodule, checkpoint)
    run = SynthesisRun(model, datamodule, request)
    folder = SyntheticFolder(out, {"weights": _digest(checkpoint.read_bytes()), **run.settings})
    console = Console(stderr=True)
    missing = [number for number in range(request.num) if number not in folder.rows]
    for number in track(missing, "making images", console=console, transient=True, disable=not console.is_terminal):
        run.add_image(number, folder)
        _check_usable(folder, checkpoint, request, MAX_UNUSABLE)
    _check_usable(folder, checkpoint, request, 1)
    return [folder.rows[number] for number in range(request.num)]


def summary_table(rows: list[SyntheticRow]) -> Table:
    """Build the table of results: a row for each category."""
    table = Table("category", "images", "without usable defect", "mean of the map", "defect pixels")
    for category in sorted({row["category"] for row in rows}):
        in_category = [row for row in rows if row["category"] == category]
        usable = [row for row in in_category if row["image"]]
        share = f"{100 * float(np.mean([row['defect_share'] for row in usable])):.3g} %" if usable else "-"
        mean = f"{float(np.mean([row['mean_map'] for row in in_category])):.3g}"
        table.add_row(Text(category), str(len(usable)), str(len(in_category) - len(usable)), mean, share)
    return table


class SynthesisRun:
    """Puts defects on the normal images of a data module and adds the results to a folder.

    Args:
        model: Trained model.
        datamodule: Data module that is set up.
        request: Settings.

    Attributes:
        settings: Everything besides the weights that the images depend on, as plain JSON values.

    Raises:
        InvalidInputError: If the category or the region mask is invalid, or there are no normal images.
    """

    def __init__(self, model: DefectSynthesizer, datamodule: AnomalibDataModule, request: SynthesisRequest) -> None:
        self.model = model
        self.request = request
        self.categories = _requested_categories(model, request.category)
        self.region = _read_region(request.region, model.image_size)
        self.dataset = checked(datamodule.train_data)
        self.dataset.augmentations = None
        self.sources = _normal_rows(self.dataset, datamodule.name)
        self.settings = {
            "categories": list(model.categories),
            "image_size": list(model.image_size),
            "category": request.category,
            "region": None if request.region is None else _digest(self.region.numpy().tobytes()),
            "seed": request.seed,
            "threshold": request.threshold,
            "max_share": request.max_share,
            "restored": request.restored,
            **({"keep_all": True} if request.keep_all else {}),  # absent from folders of earlier versions
            "data": datamodule.name,
            "normal images": _digest("\n".join(map(self._name, self.sources)).encode()),
        }

    def add_image(self, number: int, folder: SyntheticFolder) -> None:
        """Synthesize image ``number`` and add it to the folder."""
        category = self._category(number)
        control = self._control(category)
        row: SyntheticRow = {"number": number, "category": category, "seed": self.request.seed}
        row |= dict.fromkeys(("image", "mask", "normal"), "")
        for attempt in range(MAX_ATTEMPTS):
            rng = _rng(self.request.seed, number, attempt)
            source = self.sources[int(torch.randint(len(self.sources), (), generator=rng))]
            normal = cast(Tensor, self.dataset[source].image).as_subclass(Tensor)[None]
            image, maps = (output.cpu() for output in self.model.synthesize(normal, control, rng))
            mask = self._mask(image, maps, self.model.affected_region(control), normal)
            row |= {"source": self._path(source), "mean_map": float(maps.mean())}
            row |= {"defect_share": float(mask.float().mean())}
            usable = mask.any() and leaves_background(mask[0, 0].numpy())
            if usable or self.request.keep_all:
                name = f"{category}/{number:05}.png"
                row |= {"image": name, "mask": f"{MASKS}/{name}" if usable else ""}
                row["normal"] = folder.add_normal(f"{source:05}.png", self._resize(normal)[0])
                break
        images = {row[name]: file[0] for name, file in (("image", image), ("mask", mask)) if row[name]}
        if images and self.request.restored:
            restored, _ = self.model.restore(image)
            images[f"{RESTORED}/{number:05}.png"] = restored[0].cpu()
        folder.add(row, images)

    def _category(self, number: int) -> str:
        """Return the category of an image, which depends only on the seed and its number."""
        if self.request.category != AS_TRAINED:
            return list(self.categories)[number % len(self.categories)]
        weights = torch.tensor(list(self.categories.values()), dtype=torch.float)
        rng = _rng(self.request.seed, number, MAX_ATTEMPTS)  # unlike those of the attempts
        return list(self.categories)[int(torch.multinomial(weights, 1, generator=rng))]

    def _control(self, category: str) -> Tensor:
        """Return the control map, shape (1, K, H, W) or (1, K, 1, 1)."""
        labels = torch.tensor([float(name in split_types(category)) for name in self.model.categories])
        return labels[None, :, None, None] * self.region

    def _mask(self, image: Tensor, maps: Tensor, region: Tensor, normal: Tensor) -> Tensor:
        """Return the mask of the defect, shape (1, 1, H, W), bool; empty if the defect is not visible."""
        threshold = self.request.threshold
        if isinstance(threshold, str):
            threshold = float(threshold_otsu(maps[region].numpy()))  # type: ignore[no-untyped-call]
        mask = self.model.defect_masks(maps * region, threshold, self.request.max_share)
        return mask & (((image - self._resize(normal)).abs() * mask).max() > VISIBLE)

    def _resize(self, image: Tensor) -> Tensor:
        size = list(self.model.image_size)
        resized: Tensor = resize(image, size, InterpolationMode.BICUBIC, antialias=True)
        return resized.clamp(0, 1)

    def _path(self, row: int) -> str:
        return str(self.dataset.samples.image_path.iloc[row])

    def _name(self, row: int) -> str:
        # Without the parent folders, so that the data may be moved.
        return "/".join(Path(self._path(row)).parts[-2:])


def _rng(*numbers: int) -> torch.Generator:
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def _requested_categories(model: DefectSynthesizer, category: str | None) -> dict[str, int]:
    """Return the categories to make, and how often they occur in the training set of the model, where that counts."""
    if category == AS_TRAINED:
        names: dict[str, int] = getattr(model, "label_sets", {})
        if not names:
            msg = (
                f"the checkpoint does not know the types of its training images, which --category {AS_TRAINED} draws: "
            )
            raise InvalidInputError(msg + "train again with this version, or name a category")
    else:
        names = dict.fromkeys(model.categories if category is None else [category], 1)
    for name in names:
        unknown = sorted(set(name.split(SEPARATOR)) - set(model.categories))
        if unknown:
            known = ", ".join(model.categories)
            msg = f"there is no category {' or '.join(map(repr, unknown))}; the checkpoint knows {known}"
            raise InvalidInputError(msg)
        check_folder_name(name)
    return names


def _read_region(path: Path | None, size: Size) -> Tensor:
    """Read the region, shape (1, 1, H, W), 0 or 1; without a path, shape (1, 1, 1, 1)."""
    if path is None:
        return torch.ones(1, 1, 1, 1)
    with reading("region mask", str(path), "Pass the path of an existing file as --region."):
        region = torch.from_numpy(read_mask(path))
    if tuple(region.shape) != tuple(size):
        actual, needed = ("x".join(map(str, shape[::-1])) for shape in (tuple(region.shape), tuple(size)))
        msg = f"region mask {path} is {actual} pixels, and the checkpoint makes images of {needed}; make it as large"
        raise InvalidInputError(msg)
    if not region.any():
        msg = f"region mask {path} marks nothing; mark where defects are to be"
        raise InvalidInputError(msg)
    return region[None, None].float()


def _normal_rows(dataset: AnomalibDataset, name: str) -> list[int]:
    """Return the rows of the normal images."""
    rows = cast(list[int], np.flatnonzero(dataset.samples.label_index == LabelName.NORMAL).tolist())
    if not rows:
        msg = f"{name} has no normal image in its training set to put defects on; use data with some"
        raise InvalidInputError(msg)
    return rows


def _check_data(model: DefectSynthesizer, datamodule: AnomalibDataModule, checkpoint: Path) -> None:
    """Check that data with named defect types has those of the model: the result is meant to complement it.

    Raises:
        ConfigurationError: If they differ.
    """
    tables = [with_defect_types(dataset.samples) for dataset in datasets_of(datamodule).values()]
    types = {name for table in tables for types in table.defect_type.unique() for name in split_types(types)}
    types -= UNNAMED_TYPES
    unknown = sorted(set(model.categories) - types - UNNAMED_TYPES)
    if types and unknown:
        of_model, of_data = ", ".join(model.categories), ", ".join(islice(sorted(types), 20))
        msg = (
            f"checkpoint {checkpoint} makes defects of type {of_model}, but those of {datamodule.name} are {of_data}; "
            "use the data it was trained with, or data of normal images only"
        )
        raise ConfigurationError(msg)


def _check_usable(folder: SyntheticFolder, checkpoint: Path, request: SynthesisRequest, count: int) -> None:
    """Check that one image has a defect, once ``count`` images are finished.

    Raises:
        InvalidInputError: If none has.
    """
    if len(folder.rows) < count or any(row["image"] for row in folder.rows.values()):
        return
    mean = float(np.mean([row["mean_map"] for row in folder.rows.values()]))
    msg = (
        f"{checkpoint} makes no usable defects: its maps have a mean of {mean:.3g}, and above --threshold "
        f"{request.threshold} none marks a visible defect that covers --max-share {request.max_share} of the image at "
        "most and leaves a background; train longer, or choose others"
    )
    raise InvalidInputError(msg)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
