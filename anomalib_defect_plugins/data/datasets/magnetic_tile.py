"""Magnetic Tile: grey photographs of magnetic tiles, with defects of five types, 103 to 620 pixels a side.

Layout of the authors: ``MT_<Type>/Imgs/expE_num_N.jpg`` and a mask of the same stem with the suffix ``.png``. 952
images show no defect, 392 show one. Huang, Qiu, Yuan, "Surface defect saliency of magnetic tile", The Visual Computer
36, 2020.

Most tiles were photographed six times in a row, with exposures E from 1 to 6, and the counter N grows by about 20 from
shot to shot. Images with close numbers therefore show one tile, in the same light and with the same scratches.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pandas as pd
from anomalib.data.utils import Split
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_files import image_files
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset, check_not_empty
from anomalib_defect_plugins.data.download import download_if_missing
from anomalib_defect_plugins.data.published_layout import check_count, existing_file
from anomalib_defect_plugins.data.sample_table import Sample, by_label, make_table, shuffled

URL = "https://github.com/abin24/Magnetic-tile-defect-datasets./archive/refs/heads/master.zip"
"""Archive of the authors' repository."""

DIGEST = "cff62260cc530b6349e9b059888d98bd126524c95ea8e0f5e846c279b4bca6e9"
"""SHA-256 of the files used, see :func:`~anomalib_defect_plugins.data.download.content_digest`."""

FILES = re.compile(r"MT_(Free/Imgs/exp\w+\.jpg|(Blowhole|Break|Crack|Fray|Uneven)/Imgs/exp\w+\.(jpg|png))")
"""Files of the archive to unpack, without the masks of normal images, which are empty."""

FREE = "MT_Free"
"""Folder of the normal images."""

COUNTS = {FREE: 952, "MT_Blowhole": 115, "MT_Break": 85, "MT_Crack": 57, "MT_Fray": 32, "MT_Uneven": 103}
"""Number of images by folder."""

TYPES = {FREE: GOOD} | {folder: folder.removeprefix("MT_").lower() for folder in COUNTS if folder != FREE}
"""Defect type by folder."""

UNMARKED = ("exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057")
"""Images of type ``uneven`` whose masks are empty as published."""

NAME = re.compile(r"exp\d_num_(\d+)")
"""Name of an image, without its suffix."""

MAX_GAP = 200
"""Maximum distance between consecutive numbers of one tile, except for ``ONE_TILE``."""

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
"""Numbers of images that show one tile although they are further apart: an interrupted series, or a repeated tile.

Found by correlating all images with each other and from gaps in the exposures, and confirmed visually.
"""

LAYOUT = "MT_Free, MT_Blowhole, MT_Break, MT_Crack, MT_Fray and MT_Uneven, each with Imgs/expE_num_N.jpg and .png"


class MagneticTile(DefectDataModule):
    """Magnetic Tile: all 392 defective images and a share of the 952 normal ones for testing, the rest for training.

    There is no published split. Images of one tile are in one split (column ``group``, see the module's docstring):
    the 107 normal images that were taken next to a defective one are test images and count for ``test_ratio``. Tiles
    that were photographed alternately are one group.

    Four images of type ``uneven`` have an empty mask as published (``UNMARKED``). They stay in the test split; only for
    them the column ``marked`` of the table is false. Elsewhere a mask marks pixels above 0. The empty masks of normal
    images are not read.

    A missing root is downloaded from the authors' repository. It states no licence, but permits the use of the data and
    asks for a citation of the paper.

    Args:
        root: Folder with ``MT_Free`` and the folders of defects.
        test_ratio: Minimum share of the normal images in the test split, in [0, 1), which is filled tile by tile. At
            least one tile is left for training.
        seed: Seed of the splits.
        kwargs: Batch sizes, workers, augmentations and validation split, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: If an argument is invalid. On setup, if a file name does not belong to the data set.
        MissingDataError: On setup, if a file is missing; the message names it or its folder.
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/MagneticTile",
        test_ratio: float = 0.2,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, seed=seed, **kwargs)
        check_fraction("test_ratio", test_ratio, zero=True)
        check_not_negative(seed=seed)
        self.test_ratio = test_ratio

    def prepare_data(self) -> None:
        """Download the data set if the root is missing or empty.

        Raises:
            MissingDataError: If the download fails; the message says what to put where.
        """
        notice = "the authors of Magnetic Tile ask that their paper be cited"
        download_if_missing(self.root, URL, FILES, LAYOUT, notice, digest=DIGEST)

    def _setup(self, _stage: str | None = None) -> None:
        images = [image for folder in COUNTS for image in _images(self.root, folder)]
        groups = tile_of_number(_number(image) for image in images)
        samples = [_sample(image, str(groups[_number(image)])) for image in images]
        normal, defective = by_label(samples)
        test_groups = self._test_groups(make_table(normal), {sample.group for sample in defective})
        test = [sample._replace(split=Split.TEST.value) for sample in normal if sample.group in test_groups]
        self.train_data = MagneticTileDataset([sample for sample in normal if sample.group not in test_groups])
        self.test_data = MagneticTileDataset(test + defective)

    def _test_groups(self, normal: pd.DataFrame, defective: set[str]) -> set[str]:
        """Add tiles in random order to those of defective images until there are enough normal test images."""
        sizes = shuffled(normal, self.seed).groupby("group", sort=False).size()
        missing = round(self.test_ratio * len(normal)) - sizes[sizes.index.isin(defective)].sum()
        selected = set(defective)
        for group, size in sizes[~sizes.index.isin(defective)].iloc[:-1].items():
            if missing <= 0:
                break
            selected.add(group)
            missing -= size
        return selected


class MagneticTileDataset(CheckedDataset):
    """Images of Magnetic Tile. An empty mask is an error, unless it was published empty.

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
        """Load a mask, shape (H, W), uint8, 1 on the defect.

        Raises:
            InvalidInputError: If it marks nothing and was not published empty.
        """
        mask = super().load_mask(path)
        if Path(path).stem in UNMARKED:
            return mask
        return check_not_empty(mask, f"mask {path}", f"restore the published file from {URL}")


def tile_of_number(numbers: Iterable[int]) -> dict[int, int]:
    """Find the images that show one tile.

    Args:
        numbers: Numbers in the names of the images.

    Returns:
        First number of the tile, by number.
    """
    tiles: dict[int, int] = {}
    for number, previous in _with_previous(sorted(set(numbers))):
        tiles[number] = tiles[previous] if previous is not None and number - previous <= MAX_GAP else number
    for same_tile in ONE_TILE:
        joined = {tiles[number] for number in same_tile if number in tiles}
        tiles = {number: min(joined) if tile in joined else tile for number, tile in tiles.items()}
    return tiles


def _with_previous(numbers: Sequence[int]) -> Iterator[tuple[int, int | None]]:
    return zip(numbers, chain([None], numbers), strict=False)


def _images(root: Path, folder: str) -> list[Path]:
    """Return the images of a folder and check their number and names."""
    path = root / folder / "Imgs"
    files = [file for file in image_files(path) if file.suffix.lower() != ".png"] if path.is_dir() else []
    for file in files:
        if not NAME.fullmatch(file.stem):
            msg = f"image {file} is not named expE_num_N.jpg, so its tile is unknown; rename or remove it"
            raise InvalidInputError(msg)
    check_count(path, len(files), COUNTS[folder], _advice(root))
    return files


def _number(image: Path) -> int:
    return int(cast(re.Match[str], NAME.fullmatch(image.stem))[1])


def _sample(image: Path, group: str) -> Sample:
    folder = image.parent.parent
    if folder.name == FREE:
        return Sample(str(image), Split.TRAIN.value, group=group)
    mask = existing_file(image.with_suffix(".png"), f"{image} needs it: {_advice(folder.parent)}")
    return Sample(str(image), Split.TEST.value, TYPES[folder.name], mask, group)


def _advice(root: Path) -> str:
    return f"{root} must contain {LAYOUT}, available from {URL}"
