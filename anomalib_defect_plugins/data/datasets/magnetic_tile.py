"""Magnetic Tile: grey photographs of magnetic tiles, with defects of five types. Sizes vary, 103-620 pixels a side.

Read in its authors' layout: ``MT_<Type>/Imgs/expE_num_N.jpg`` and a mask of the same stem that ends in ``.png``. 952
images show no defect, 392 show one. Huang, Qiu, Yuan, "Surface defect saliency of magnetic tile", The Visual Computer
36, 2020.

Most tiles were photographed six times in a row, at the exposures E from 1 to 6, while the counter N went on by some 20
a shot. So images with numbers close to each other show one tile, in the same light and with the same scratches.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pandas as pd
from anomalib.data.utils import Split
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data.dataset import CheckedDataset, image_files
from anomalib_defect_plugins.data.download import download_files
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, existing, make_table, shuffled
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError

logger = logging.getLogger(__name__)

URL = "https://github.com/abin24/Magnetic-tile-defect-datasets./archive/refs/heads/master.zip"
"""The authors' repository as an archive."""

DIGEST = "cff62260cc530b6349e9b059888d98bd126524c95ea8e0f5e846c279b4bca6e9"
"""SHA-256 of the files used, see :func:`~anomalib_defect_plugins.data.download.content_digest`."""

FILES = re.compile(r"MT_(Free/Imgs/exp\w+\.jpg|(Blowhole|Break|Crack|Fray|Uneven)/Imgs/exp\w+\.(jpg|png))")
"""The files of the archive that are read here: masks of images without a defect are empty and left out."""

FREE = "MT_Free"
"""Folder of the images without a defect."""

COUNTS = {FREE: 952, "MT_Blowhole": 115, "MT_Break": 85, "MT_Crack": 57, "MT_Fray": 32, "MT_Uneven": 103}
"""Number of images by folder."""

TYPES = {FREE: GOOD} | {folder: folder.removeprefix("MT_").lower() for folder in COUNTS if folder != FREE}
"""Defect type by folder."""

UNMARKED = ("exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057")
"""Images of type ``uneven`` whose masks are empty as published."""

NAME = re.compile(r"exp\d_num_(\d+)")
"""Name of an image, without its suffix."""

GAP = 200
"""Two images whose numbers are further apart, with none between them, are of two tiles, but for ``ONE_TILE``."""

ONE_TILE = (
    (5924, 13549),
    (8676, 9196, 10334),
    (37098, 37556),
    (53049, 65017),
    (85602, 86828, 88149),
    (124236, 124592),
    (136351, 136676),
    (257678, 257938),
    (283254, 283465),
    (355732, 358149),
)
"""Numbers of images further apart that show one tile all the same: a series with a pause, or a tile seen again.

Found by correlating all images with each other and from gaps in the exposures, and confirmed by eye.
"""

LAYOUT = "MT_Free, MT_Blowhole, MT_Break, MT_Crack, MT_Fray and MT_Uneven, each with Imgs/expE_num_N.jpg and .png"


class MagneticTile(DefectDataModule):
    """Magnetic Tile: all 392 defective images test, and a share of the 952 others; the rest of these trains.

    There is no published split. Images of one tile are in one split (column ``group``, see the module's notes): the 107
    images without a defect that were taken next to a defective one test too, and count for ``test_ratio``. Tiles that
    were photographed in turns are one group.

    Four images of type ``uneven`` have an empty mask as published (``UNMARKED``). They stay in the test split, and the
    column ``marked`` of the table is false for them alone. Elsewhere a mask marks what is above 0. Masks of images
    without a defect exist and are empty; they are not read.

    A missing root is downloaded from the authors' repository, which states no licence, but that the data may be used
    and that their paper is to be cited.

    Args:
        root: Folder that holds ``MT_Free`` and the folders of defects.
        test_ratio: Share of the images without a defect that test, in [0, 1): tile by tile, until there are so many.
            One tile at least trains.
        seed: Seed of the splits.
        kwargs: Batch sizes, processes, augmentations and validation split, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: An argument cannot be. On setup: a file's name is not one of the data set.
        MissingDataError: On setup: a file is missing; the message names it or its folder.
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/MagneticTile",
        test_ratio: float = 0.2,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, seed=seed, **kwargs)
        if not 0 <= test_ratio < 1:
            msg = f"test_ratio is {test_ratio}; it must be in [0, 1)"
            raise InvalidInputError(msg)
        if seed < 0:
            msg = f"the seed of MagneticTile must be 0 or more, not {seed}"
            raise InvalidInputError(msg)
        self.test_ratio = test_ratio

    def prepare_data(self) -> None:
        """Download the data set if the root is missing or empty.

        Raises:
            MissingDataError: The download failed; the message says what to put where.
        """
        if self.root.is_dir() and any(self.root.iterdir()):
            return
        logger.warning("downloading Magnetic Tile from %s; its authors ask that their paper be cited", URL)
        try:
            download_files(URL, self.root, FILES, DIGEST)
        except MissingDataError as error:
            msg = f"{error}; download it by hand and unpack it such that {self.root} holds {LAYOUT}"
            raise MissingDataError(msg) from error

    def _setup(self, _stage: str | None = None) -> None:
        images = [image for folder in COUNTS for image in _images(self.root, folder)]
        groups = tile_of_number(_number(image) for image in images)
        samples = [_sample(image, str(groups[_number(image)])) for image in images]
        free = [sample for sample in samples if sample.defect_type == GOOD]
        defective = [sample for sample in samples if sample.defect_type != GOOD]
        testing = self._choose_groups(make_table(free), {sample.group for sample in defective})
        test = [sample._replace(split=Split.TEST.value) for sample in free if sample.group in testing]
        self.train_data = MagneticTileDataset([sample for sample in free if sample.group not in testing])
        self.test_data = MagneticTileDataset(test + defective)

    def _choose_groups(self, free: pd.DataFrame, taken: set[str]) -> set[str]:
        """Add tiles, in random order, to those that test anyway, until there are enough images."""
        sizes = shuffled(free, self.seed).groupby("group", sort=False).size()
        missing = round(self.test_ratio * len(free)) - sizes[sizes.index.isin(taken)].sum()
        for group, size in sizes[~sizes.index.isin(taken)].iloc[:-1].items():
            if missing <= 0:
                break
            taken = taken | {group}
            missing -= size
        return taken


class MagneticTileDataset(CheckedDataset):
    """Images of Magnetic Tile. A mask that marks nothing is refused, unless it was published so.

    Args:
        samples: The images.
        augmentations: Augmentations of images and masks.
    """

    def __init__(self, samples: Sequence[Sample], augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        table = make_table(samples)
        table["marked"] = [Path(path).stem not in UNMARKED for path in table.image_path]
        self.samples = table

    def load_mask(self, path: str) -> Mask:
        """Read the mask at ``path``: (H, W), uint8, 1 on the defect.

        Raises:
            InvalidInputError: It marks nothing, and was not published so.
        """
        mask = super().load_mask(path)
        if not mask.any() and Path(path).stem not in UNMARKED:
            msg = f"mask {path} marks nothing; put the file back as it was published, in {URL}"
            raise InvalidInputError(msg)
        return mask


def tile_of_number(numbers: Iterable[int]) -> dict[int, int]:
    """Tell which images show one tile.

    Args:
        numbers: Numbers in the names of the images.

    Returns:
        The first number of the tile, by number.
    """
    tiles: dict[int, int] = {}
    for number, previous in _with_previous(sorted(set(numbers))):
        tiles[number] = tiles[previous] if previous is not None and number - previous <= GAP else number
    for same in ONE_TILE:
        found = {tiles[number] for number in same if number in tiles}
        tiles = {number: min(found) if tile in found else tile for number, tile in tiles.items()}
    return tiles


def _with_previous(numbers: Sequence[int]) -> Iterator[tuple[int, int | None]]:
    return zip(numbers, chain([None], numbers), strict=False)


def _images(root: Path, folder: str) -> list[Path]:
    """Images of a folder, as many as there must be, and named as they must be."""
    path = root / folder / "Imgs"
    files = [file for file in image_files(path) if file.suffix.lower() != ".png"] if path.is_dir() else []
    for file in files:
        if not NAME.fullmatch(file.stem):
            msg = f"image {file} is not named as expE_num_N.jpg, so its tile is unknown; remove it or name it so"
            raise InvalidInputError(msg)
    if len(files) != COUNTS[folder]:
        msg = f"{path} holds {len(files)} images, not {COUNTS[folder]}; {_advice(root)}"
        raise MissingDataError(msg)
    return files


def _number(image: Path) -> int:
    return int(cast(re.Match[str], NAME.fullmatch(image.stem))[1])


def _sample(image: Path, group: str) -> Sample:
    folder = image.parent.parent
    if folder.name == FREE:
        return Sample(str(image), Split.TRAIN.value, group=group)
    mask = existing(image.with_suffix(".png"), f"{image} needs it: {_advice(folder.parent)}")
    return Sample(str(image), Split.TEST.value, TYPES[folder.name], mask, group)


def _advice(root: Path) -> str:
    return f"{root} must hold {LAYOUT}, to be had from {URL}"
