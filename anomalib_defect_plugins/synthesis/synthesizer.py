"""Makes a data set of synthetic defects with a trained Defect-GAN; the work behind ``anomalib-defects synthesize``."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName
from PIL import Image
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
from anomalib_defect_plugins.data.dataclasses import SEPARATOR, split_types
from anomalib_defect_plugins.data.dataset import reading
from anomalib_defect_plugins.data.datasets.defect_folder import MASKS
from anomalib_defect_plugins.data.summary import datasets_of
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.defectgan.categories import UNNAMED
from anomalib_defect_plugins.models.defectgan.synthesis import LARGEST, defect_masks, load, reached
from anomalib_defect_plugins.synthesis.folder import RESTORED, SyntheticFolder, check_folder_name

ATTEMPTS = 10
"""How often an image is drawn anew, on another normal image, when no usable defect came out."""

HOPELESS = 10
"""So many images without a usable defect, and none with one, end the run."""


OTSU = "otsu"
"""The threshold that splits a map's values such that those of both sides are most alike."""


@dataclass(frozen=True)
class Request:
    """What is to be made.

    Args:
        num: How many images; of a folder that has fewer, the others are added.
        category: Type of their defects, or several joined by ``+``; by default each type in turn.
        region: Image of the model's size, in which the defects are to be where it is not black; by default anywhere.
        seed: Seed. Image i depends on it and on i alone.
        threshold: A pixel is of a defect where the map m is above it, in (0, 1); or ``otsu``, for each map its own:
            where maps are never low, as those of a short training, no number would tell a defect from the rest.
        max_share: Greatest share of the image that a defect may cover, in (0, 1]; an image with a larger one is drawn
            anew, for a map that marks nearly everything has most often collapsed. Some types do cover much, though.
        restored: Whether the images with the defect taken away again are kept too.

    Raises:
        InvalidInputError: A number cannot be.
    """

    num: int = 500
    category: str | None = None
    region: Path | None = None
    seed: int = 0
    threshold: float | Literal["otsu"] = 0.5
    max_share: float = LARGEST
    restored: bool = False

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
    checkpoint: Path, datamodule: AnomalibDataModule, out: Path, request: Request, device: str | None = None
) -> list[dict[str, Any]]:
    """Put defects on normal training images, and write them as a data set; shows progress on standard error.

    What an interrupted run has finished is kept, and a finished one is not repeated.

    Args:
        checkpoint: A trained Defect-GAN.
        datamodule: Gives the normal images, set up. The augmentations of its training set are taken away.
        out: Folder to write to: new, empty, or begun with the same settings. See ``SyntheticFolder`` for what it gets.
        request: What is to be made.
        device: Where the model works; by default on a GPU if there is one.

    Returns:
        The rows of the images asked for, in order; see ``COLUMNS``.

    Raises:
        MissingDataError: There is no such checkpoint or region mask.
        InvalidInputError: A file or an argument cannot be used, the folder is in use, or nothing can be written there.
        ConfigurationError: Checkpoint and data do not fit.
    """
    model = load(checkpoint, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    _check_data(model, datamodule, checkpoint)
    painter = Painter(model, datamodule, request)
    settings = {"weights": _digest(checkpoint.read_bytes()), **painter.settings}
    folder = SyntheticFolder(out, settings)
    console = Console(stderr=True)
    options = {"console": console, "transient": True, "disable": not console.is_terminal}
    for number in track([n for n in range(request.num) if n not in folder.rows], "making images", **options):
        painter.paint(number, folder)
        _check_hope(folder, checkpoint, request, HOPELESS)
    _check_hope(folder, checkpoint, request, 1)
    return [folder.rows[number] for number in range(request.num)]


def summary_table(rows: list[dict[str, Any]]) -> Table:
    """Make the table of what came out: a row for each category."""
    table = Table("category", "images", "without usable defect", "mean of the map", "defect pixels")
    for category in sorted({row["category"] for row in rows}):
        of_it = [row for row in rows if row["category"] == category]
        usable = [row for row in of_it if row["image"]]
        share = f"{100 * float(np.mean([row['defect_share'] for row in usable])):.3g} %" if usable else "-"
        mean = f"{float(np.mean([row['mean_map'] for row in of_it])):.3g}"
        table.add_row(Text(category), str(len(usable)), str(len(of_it) - len(usable)), mean, share)
    return table


class Painter:
    """Puts defects on the normal images of a data module, and hands them to a folder.

    Args:
        model: The trained model.
        datamodule: The data module, set up.
        request: What is to be made.

    Attributes:
        settings: Everything that the images depend on besides the weights, as plain JSON values.

    Raises:
        InvalidInputError: An unknown category, a region mask that cannot be, or no normal images.
    """

    def __init__(self, model: DefectGan, datamodule: AnomalibDataModule, request: Request) -> None:
        self.model = model
        self.request = request
        self.categories = _wanted(model.categories, request.category)
        self.region = _read_region(request.region, model.image_size)
        self.dataset = datamodule.train_data
        self.dataset.augmentations = None
        self.sources = _sources(self.dataset, datamodule.name)
        self.settings = {
            "categories": list(model.categories),
            "image_size": list(model.image_size),
            "category": request.category,
            "region": None if request.region is None else _digest(self.region.numpy().tobytes()),
            "seed": request.seed,
            "threshold": request.threshold,
            "max_share": request.max_share,
            "restored": request.restored,
            "data": datamodule.name,
            "normal images": _digest("\n".join(map(self._name, self.sources)).encode()),
        }

    def paint(self, number: int, folder: SyntheticFolder) -> None:
        """Make image ``number`` and add it to the folder."""
        category = self.categories[number % len(self.categories)]
        control = self._control(category)
        row = {"number": number, "category": category, "seed": self.request.seed}
        row |= dict.fromkeys(("image", "mask", "normal"), "")
        for attempt in range(ATTEMPTS):
            rng = _rng(self.request.seed, number, attempt)
            source = self.sources[int(torch.randint(len(self.sources), (), generator=rng))]
            normal = self.dataset[source].image.as_subclass(Tensor)[None]
            image, maps = (part.cpu() for part in self.model.synthesize(normal, control, rng))
            mask = self._mask(image, maps, reached(control, self.model.image_size), normal)
            row |= {"source": self._path(source), "mean_map": float(maps.mean())}
            row |= {"defect_share": float(mask.float().mean())}
            if mask.any():
                name = f"{category}/{number:05}.png"
                row |= {"image": name, "mask": f"{MASKS}/{name}"}
                row["normal"] = folder.add_normal(f"{source:05}.png", self._resized(normal)[0])
                break
        images = {row["image"]: image[0], row["mask"]: mask[0]} if row["image"] else {}
        if images and self.request.restored:
            images[f"{RESTORED}/{number:05}.png"] = self.model.restore(image).images[0].cpu()
        folder.add(row, images)

    def _control(self, category: str) -> Tensor:
        """The control map A, (1, K, H, W)."""
        types = torch.tensor([float(name in split_types(category)) for name in self.model.categories])
        return types[None, :, None, None] * self.region

    def _mask(self, image: Tensor, maps: Tensor, region: Tensor, normal: Tensor) -> Tensor:
        """Where the defect is, (1, 1, H, W), bool; nowhere if nothing is to be seen of it."""
        threshold = self.request.threshold
        if threshold == OTSU:
            threshold = float(threshold_otsu(maps[region].numpy()))  # type: ignore[no-untyped-call]
        mask = defect_masks(maps * region, threshold, max_share=self.request.max_share)
        return mask & (((image - self._resized(normal)).abs() * mask).max() > VISIBLE)

    def _resized(self, image: Tensor) -> Tensor:
        size = list(self.model.image_size)
        return resize(image, size, InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)

    def _path(self, row: int) -> str:
        return str(self.dataset.samples.image_path.iloc[row])

    def _name(self, row: int) -> str:
        # Without the folders above, so that the data may be moved.
        return "/".join(Path(self._path(row)).parts[-2:])


def _rng(*numbers: int) -> torch.Generator:
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def _wanted(known: Sequence[str], category: str | None) -> list[str]:
    """Give the categories that take turns."""
    names = list(known) if category is None else [category]
    for name in names:
        unknown = sorted(set(name.split(SEPARATOR)) - set(known))
        if unknown:
            msg = f"there is no category {' or '.join(map(repr, unknown))}; the checkpoint knows {', '.join(known)}"
            raise InvalidInputError(msg)
        check_folder_name(name)
    return names


def _read_region(path: Path | None, size: tuple[int, int]) -> Tensor:
    """Give the region, (1, 1, H, W) or, for anywhere, (1, 1, 1, 1), 0 or 1."""
    if path is None:
        return torch.ones(1, 1, 1, 1)
    with reading("region mask", str(path)), Image.open(path) as image:
        region = torch.from_numpy(np.array(image.convert("L")) > 0)
    if tuple(region.shape) != tuple(size):
        given, needed = ("x".join(map(str, shape[::-1])) for shape in (tuple(region.shape), tuple(size)))
        msg = f"region mask {path} is {given} pixels, and the checkpoint makes images of {needed}; make it as large"
        raise InvalidInputError(msg)
    if not region.any():
        msg = f"region mask {path} is all black; mark where defects are to be"
        raise InvalidInputError(msg)
    return region[None, None].float()


def _sources(dataset: AnomalibDataset, name: str) -> list[int]:
    """Give the rows of the normal images."""
    rows = np.flatnonzero(dataset.samples.label_index == LabelName.NORMAL).tolist()
    if not rows:
        msg = f"{name} has no normal image in its training set to put defects on; give data with some"
        raise InvalidInputError(msg)
    return rows


def _check_data(model: DefectGan, datamodule: AnomalibDataModule, checkpoint: Path) -> None:
    """Refuse data whose defects are of other types, if it knows any: the result would be of no use beside it."""
    tables = [with_defect_types(dataset.samples) for dataset in datasets_of(datamodule).values()]
    types = {name for table in tables for types in table.defect_type.unique() for name in split_types(types)}
    types -= {UNNAMED, LabelName.ABNORMAL.name.lower()}  # what data without types is given
    unknown = sorted(set(model.categories) - types - {UNNAMED, LabelName.ABNORMAL.name.lower()})
    if types and unknown:
        made, there = ", ".join(model.categories), ", ".join(islice(sorted(types), 20))
        msg = f"checkpoint {checkpoint} makes defects of type {made}, but those of {datamodule.name} are {there}; "
        raise ConfigurationError(msg + "give the data it was trained with, or data of normal images alone")


def _check_hope(folder: SyntheticFolder, checkpoint: Path, request: Request, least: int) -> None:
    """Stop when ``least`` images have come out, and none with a defect."""
    if len(folder.rows) < least or any(row["image"] for row in folder.rows.values()):
        return
    mean = float(np.mean([row["mean_map"] for row in folder.rows.values()]))
    msg = f"{checkpoint} makes no usable defects: its maps have a mean of {mean:.3g}, and above --threshold "
    msg += f"{request.threshold} none marks something to be seen that covers --max-share {request.max_share} of the "
    raise InvalidInputError(msg + "image at most; train longer, or choose others")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
