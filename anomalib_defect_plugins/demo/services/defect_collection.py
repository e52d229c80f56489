"""The synthetic defects of one user, and the folder that they are saved to for training."""

import io
import itertools
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from gradio.utils import get_upload_folder
from PIL import Image
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.folder_reader import MASKS
from anomalib_defect_plugins.demo.services.defect_sources import DrawnDefect
from anomalib_defect_plugins.demo.services.uploads import encode_png
from anomalib_defect_plugins.synthesis.folder import SyntheticFolder, check_folder_name

SYNTHETIC_FOLDER = "synthetic"
"""Subfolder of the results folder that collections are saved to."""

MAX_IMAGES = 64
"""Maximum number of images in a collection."""

FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
"""Accepted names of saved folders."""


@dataclass(frozen=True)
class CollectedDefect:
    """An image with a synthetic defect.

    Args:
        image: PNG file.
        mask: PNG file of the mask.
        category: Category of the defect.
        source: Title of the source that has drawn it.
        normal: Index of the normal image that it is drawn on.
        seed: Seed that it is drawn with.
        share: Fraction of the image that is defective.
    """

    image: bytes
    mask: bytes
    category: str
    source: str
    normal: int
    seed: int
    share: float


@dataclass
class DefectCollection:
    """The defects that a user has drawn.

    Attributes:
        normal_images: Normal images as PNG files, by name.
        defects: Images with defects.
    """

    normal_images: dict[str, bytes] = field(default_factory=dict)
    defects: list[CollectedDefect] = field(default_factory=list)

    def check_room(self, count: int) -> None:
        """Check that ``count`` more images fit.

        Raises:
            InvalidInputError: If there would be more than ``MAX_IMAGES``.
        """
        if len(self.defects) + count > MAX_IMAGES:
            msg = f"there are {len(self.defects)} images, and {count} more would exceed {MAX_IMAGES}; save them and "
            raise InvalidInputError(msg + "start over")

    def add(
        self,
        name: str,
        pixels: npt.NDArray[np.uint8],
        defect: DrawnDefect,
        category: str,
        source: str,
        seed: int,
    ) -> None:
        """Add an image.

        Args:
            name: Name of the normal image.
            pixels: The normal image, shape (H, W, 3), uint8.
            defect: Defect that is drawn on it.
            category: Category of the defect.
            source: Title of the source that has drawn it.
            seed: Seed that it is drawn with.
        """
        self.normal_images.setdefault(name, encode_png(pixels))
        index = list(self.normal_images).index(name)
        mask = encode_png(defect.mask.astype(np.uint8) * 255)
        share = float(defect.mask.mean())
        self.defects.append(CollectedDefect(encode_png(defect.image), mask, category, source, index, seed, share))

    def save(self, root: Path, name: object) -> Path:
        """Save the images to a folder in the layout of ``anomalib-defects synthesize``.

        Args:
            root: Results folder; the new folder is created in its subfolder ``synthetic``.
            name: Name of the new folder.

        Returns:
            The new folder.

        Raises:
            InvalidInputError: If the collection is empty, the name is invalid or taken, or the folder is not writable.
        """
        if not self.defects:
            msg = "there is nothing to save yet; generate some defects first"
            raise InvalidInputError(msg)
        path = _create_folder(root, name)
        settings = {"made with": "anomalib-defects demo", "sources": sorted({defect.source for defect in self.defects})}
        folder = SyntheticFolder(path, settings)
        for number, defect in enumerate(self.defects):
            self._write(folder, number, defect)
        return path

    def _write(self, folder: SyntheticFolder, number: int, defect: CollectedDefect) -> None:
        check_folder_name(defect.category)
        name = f"{defect.category}/{number:05}.png"
        source, normal = list(self.normal_images.items())[defect.normal]
        row = {"number": number, "category": defect.category, "seed": defect.seed, "source": source}
        row |= {"mean_map": defect.share, "defect_share": defect.share}
        row |= {"image": name, "mask": f"{MASKS}/{name}"}
        row["normal"] = folder.add_normal(f"{defect.normal:05}.png", _to_tensor(normal))
        folder.add(row, {name: _to_tensor(defect.image), f"{MASKS}/{name}": _to_tensor(defect.mask)})


def next_name(folder: Path, name: str) -> str:
    """Return the first name among ``name``, ``name-2``, ``name-3`` and so on that is not in a folder."""
    stem, _, number = name.rpartition("-")
    first = int(number) if stem and number.isdigit() else 1
    stem = stem if first > 1 else name
    for count in itertools.count(first):
        candidate = stem if count == 1 else f"{stem}-{count}"
        if not (folder / candidate).exists():
            break
    return candidate


def zip_folder(folder: Path, token: str) -> str:
    """Pack a folder into a ZIP file that the server offers for download.

    Args:
        folder: The folder.
        token: Name of the new folder for the file, which must not be guessable.

    Returns:
        Path of the file.
    """
    target = Path(get_upload_folder(), token)
    target.mkdir(parents=True)
    return shutil.make_archive(str(target / folder.name), "zip", folder.parent, folder.name)


def _create_folder(root: Path, name: object) -> Path:
    if not isinstance(name, str) or not FOLDER_NAME.fullmatch(name):
        msg = f"{str(name)[:60]!r} cannot be the name of the folder; use letters, digits, '-' and '_'"
        raise InvalidInputError(msg)
    path = root / SYNTHETIC_FOLDER / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.resolve() != root.resolve() / SYNTHETIC_FOLDER:
            msg = f"{SYNTHETIC_FOLDER} in the results is a link to elsewhere; remove it"
            raise InvalidInputError(msg)
        path.mkdir()
    except FileExistsError as error:
        msg = f"there is a folder {name} already; choose another name"
        raise InvalidInputError(msg) from error
    except OSError as error:
        msg = f"cannot write to the results ({error.strerror}); make the folder writable, or free space"
        raise InvalidInputError(msg) from error
    return path


def _to_tensor(png: bytes) -> Tensor:
    pixels = np.atleast_3d(np.asarray(Image.open(io.BytesIO(png))))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
