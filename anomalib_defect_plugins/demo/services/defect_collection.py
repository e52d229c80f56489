"""The defects that someone has made, and the folder that they become: one that trainings read."""

import io
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gradio.utils import get_upload_folder
from PIL import Image
from torch import Tensor

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.datasets.defect_folder import MASKS
from anomalib_defect_plugins.demo.services.defect_sources import Made
from anomalib_defect_plugins.demo.services.uploads import png
from anomalib_defect_plugins.synthesis.folder import SyntheticFolder, check_folder_name

FOLDER = "synthetic"
"""Folder of these folders, in that of the results."""

MOST = 64
"""Images that a collection has at most."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")


@dataclass(frozen=True)
class Piece:
    """An image of the collection.

    Args:
        image: As a PNG file.
        mask: Likewise.
        category: What its defect is.
        source: What has made it.
        normal: Number of the normal image that it is made of.
        seed: What it was drawn with.
        share: Share of the image that is defective.
    """

    image: bytes
    mask: bytes
    category: str
    source: str
    normal: int
    seed: int
    share: float


@dataclass
class Collection:
    """What someone has made so far.

    Attributes:
        normals: The normal images by their names, as PNG files.
        pieces: The images with defects.
    """

    normals: dict[str, bytes] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)

    def check_room(self, count: int) -> None:
        """Refuse more images than fit.

        Raises:
            InvalidInputError: There would be more than ``MOST``.
        """
        if len(self.pieces) + count > MOST:
            msg = f"{len(self.pieces)} images are made, and {count} more would be over {MOST}; save them and start over"
            raise InvalidInputError(msg)

    def add(self, normal: str, pixels: np.ndarray, made: Made, category: str, source: str, seed: int) -> None:
        """Add an image.

        Args:
            normal: Name of the normal image.
            pixels: The normal image, (H, W, 3), uint8.
            made: What was made of it.
            category: What the defect is.
            source: What has made it.
            seed: What it was drawn with.
        """
        self.normals.setdefault(normal, png(pixels))
        number = list(self.normals).index(normal)
        mask = made.mask.astype(np.uint8) * 255
        share = float(made.mask.mean())
        self.pieces.append(Piece(png(made.image), png(mask), category, source, number, seed, share))

    def save(self, root: Path, name: str) -> Path:
        """Write a folder in the layout of ``anomalib-defects synthesize``.

        Args:
            root: Folder of the results; the new one comes into its folder ``synthetic``.
            name: Name of the new folder.

        Returns:
            The folder.

        Raises:
            InvalidInputError: There is nothing to write, the name cannot be or is taken, or nothing can be written.
        """
        if not self.pieces:
            msg = "there is nothing to save yet; make some defects first"
            raise InvalidInputError(msg)
        path = _new_folder(root, name)
        settings = {"made with": "anomalib-defects demo", "sources": sorted({it.source for it in self.pieces})}
        folder = SyntheticFolder(path, settings)
        for number, piece in enumerate(self.pieces):
            self._write(folder, number, piece)
        return path

    def _write(self, folder: SyntheticFolder, number: int, piece: Piece) -> None:
        check_folder_name(piece.category)
        name = f"{piece.category}/{number:05}.png"
        source, normal = list(self.normals.items())[piece.normal]
        row = {"number": number, "category": piece.category, "seed": piece.seed, "source": source}
        row |= {"image": name, "mask": f"{MASKS}/{name}", "mean_map": piece.share, "defect_share": piece.share}
        row["normal"] = folder.add_normal(f"{piece.normal:05}.png", _tensor(normal))
        folder.add(row, {row["image"]: _tensor(piece.image), row["mask"]: _tensor(piece.mask)})


def zipped(folder: Path, place: str) -> str:
    """Pack a folder; gives the file, in a new folder of the server's.

    Args:
        folder: The folder.
        place: Name of the new folder, which nobody can guess.
    """
    target = Path(get_upload_folder(), place)
    target.mkdir(parents=True)
    return shutil.make_archive(str(target / folder.name), "zip", folder.parent, folder.name)


def _new_folder(root: Path, name: str) -> Path:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        msg = f"{str(name)[:60]!r} cannot be the name of the folder; take letters, digits, '-' and '_'"
        raise InvalidInputError(msg)
    path = root / FOLDER / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.resolve() != root.resolve() / FOLDER:
            msg = f"{FOLDER} in the results is a link to elsewhere; remove it"
            raise InvalidInputError(msg)
        path.mkdir()
    except FileExistsError as error:
        msg = f"there is a folder {name} already; take another name"
        raise InvalidInputError(msg) from error
    except OSError as error:
        msg = f"nothing can be written to the results ({error.strerror}); allow it, or make room"
        raise InvalidInputError(msg) from error
    return path


def _tensor(file: bytes) -> Tensor:
    pixels = np.atleast_3d(np.asarray(Image.open(io.BytesIO(file))))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
