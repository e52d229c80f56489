"""The data set that comes with the package: photographs of three textures with drawn defects.

The textures are ``brick``, ``grass`` and ``gravel``, photographs of 512x512 grey pixels in scikit-image's wheel.
Training crops come from the left half of a photograph; validation and test crops from the right half, which no training
image has seen. Defects are drawn by :mod:`anomalib_defect_plugins.generators.procedural`, so the masks are exact.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import platformdirs
from anomalib.data.utils import Split, ValSplitMode
from PIL import Image
from skimage import data as photographs
from skimage.transform import resize
from torchvision.transforms.v2 import Transform

from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.data.dataset import CheckedDataset
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, existing, make_table
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.generators import procedural

CATEGORIES = ("brick", "grass", "gravel")
"""The textures."""

COUNTS = {Split.TRAIN: (40, 0), Split.VAL: (20, 20), Split.TEST: (30, 60)}
"""Normal and defective images of each split; the kinds of defect take turns."""

CROP = 256
"""Side of a crop in pixels of the photograph; other image sizes show the same field of view."""

TEXTURE_STD = 0.06
"""Standard deviation of the softened photographs, in intensity of [0, 1]."""


class TextureDefects(DefectDataModule):
    """Embedded data: crops of real photographs, six kinds of drawn defects with exact masks. Needs no download.

    For each category 40 normal images to train with, 20 normal and 20 defective ones to validate, 30 normal and 60
    defective ones (10 of each kind) to test. Built within seconds when it is first used, and kept.

    Args:
        root: Folder to keep the images in; by default the user's cache folder.
        category: ``brick``, ``grass`` or ``gravel``.
        image_size: Side of the images in pixels, 64 to 1024; or height and width, which must be alike.
        num_workers: Processes that read images.
        val_split_mode: ``from_dir`` uses the set's own validation images; for others see ``ValSplitMode``.
        seed: Seed of crops, defects and splits; another seed is another data set.
        kwargs: Batch sizes, augmentations and validation share, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: The category, size or seed cannot be.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        category: str = "brick",
        image_size: int | tuple[int, int] = 256,
        # A pass over these few small files takes less time than it takes to start one process that reads them.
        num_workers: int = 0,
        val_split_mode: ValSplitMode | str = ValSplitMode.FROM_DIR,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        root = _default_root() if root is None else root
        super().__init__(root, num_workers=num_workers, val_split_mode=val_split_mode, seed=seed, **kwargs)
        image_size = _side(image_size)
        _check_arguments(category, image_size, seed)
        self.category = category
        self.image_size = image_size

    @property
    def folder(self) -> Path:
        """Where the images of this category, size and seed are; what would be drawn differently has another name."""
        return self.root / f"{self.category}-{self.image_size}-seed{self.seed}-{_fingerprint()}"

    def prepare_data(self) -> None:
        """Build the data set if it is not there yet."""
        if not self.folder.is_dir():
            build(self.folder, self.category, self.image_size, cast(int, self.seed))

    def _setup(self, _stage: str | None = None) -> None:
        self.prepare_data()
        self.train_data = TextureDefectsDataset(self.folder, Split.TRAIN)
        self.test_data = TextureDefectsDataset(self.folder, Split.TEST)
        if self.val_split_mode == ValSplitMode.FROM_DIR:
            self.val_data = TextureDefectsDataset(self.folder, Split.VAL)


class TextureDefectsDataset(CheckedDataset):
    """One split of a built category.

    Args:
        folder: What :func:`build` has built.
        split: ``train``, ``val`` or ``test``.
        augmentations: Augmentations of images and masks.

    Raises:
        MissingDataError: A file of the split is gone.
    """

    def __init__(self, folder: Path, split: Split | str, augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        self.split = Split(split)
        self.samples = make_table(_samples(Path(folder), self.split))


def build(folder: Path, category: str, image_size: int, seed: int) -> None:
    """Draw all splits of a category into ``folder``, which appears when it is complete.

    The layout is MVTec's with a level for the split: ``test/crack/000.png``, ``ground_truth/test/crack/000.png``.
    """
    photo = soften(getattr(photographs, category)().astype(np.float32) / 255)
    with new_folder(folder) as unfinished:
        for split_index, split in enumerate(COUNTS):
            for entry in _entries(split):
                rng = np.random.default_rng([seed, CATEGORIES.index(category), split_index, entry.number])
                image, mask = draw_sample(region(photo, split), entry.kind, image_size, rng)
                _save(unfinished / entry.image, image)
                if entry.mask:
                    _save(unfinished / entry.mask, mask)


def soften(photo: np.ndarray) -> np.ndarray:
    """Lower the contrast of a photograph (H, W) in [0, 1] to a standard deviation of ``TEXTURE_STD``.

    The photographs were taken in sunlight; a surface under inspection is lit diffusely, and its defects stand out.
    """
    softened: np.ndarray = photo.mean() + (photo - photo.mean()) * (TEXTURE_STD / photo.std())
    return softened


def region(photo: np.ndarray, split: Split) -> np.ndarray:
    """The part (H, W/2) of a photograph (H, W) that a split may see.

    Left and right, because the rows of bricks shrink towards the top while the two sides mirror one another.
    """
    middle = photo.shape[1] // 2
    return photo[:, :middle] if split == Split.TRAIN else photo[:, middle:]


def draw_sample(
    texture: np.ndarray,
    kind: str,
    image_size: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Take a crop at random, vary its exposure a little, and draw a defect unless ``kind`` is ``good``.

    Args:
        texture: (H, W), float in [0, 1], both sides at least ``CROP``.
        kind: ``good`` or a kind of defect.
        image_size: Side of the result in pixels.
        rng: Source of all randomness. The crop does not depend on the kind.

    Returns:
        Image (image_size, image_size, 3), float32 in [0, 1], and mask (image_size, image_size), bool.
    """
    top, left = (rng.integers(side - CROP + 1) for side in texture.shape)
    crop = texture[top : top + CROP, left : left + CROP][:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    crop = np.clip(crop * rng.uniform(0.9, 1.1) + rng.uniform(-0.03, 0.03), 0, 1)
    if image_size != CROP:
        size = (image_size, image_size)
        crop = resize(crop, size, anti_aliasing=image_size < CROP)  # type: ignore[no-untyped-call]
    image = np.repeat(crop[..., None].astype(np.float32), 3, axis=2)
    if kind == GOOD:
        return image, np.zeros(image.shape[:2], dtype=bool)
    return procedural.draw_defect(image, kind, rng)


class _Entry(NamedTuple):
    """One image of a split; paths are relative to the folder of the data set."""

    number: int
    kind: str
    image: str
    mask: str


def _entries(split: Split) -> Iterator[_Entry]:
    normal, defective = COUNTS[split]
    for number in range(normal + defective):
        kind = GOOD if number < normal else procedural.KINDS[(number - normal) % len(procedural.KINDS)]
        name = f"{split.value}/{kind}/{number:03}.png"
        yield _Entry(number, kind, name, "" if kind == GOOD else f"ground_truth/{name}")


def _samples(folder: Path, split: Split) -> Iterator[Sample]:
    advice = f"delete the folder {folder}, and it is built again"
    for entry in _entries(split):
        image = existing(folder / entry.image, advice)
        mask = existing(folder / entry.mask, advice) if entry.mask else ""
        yield Sample(image, split.value, entry.kind, mask)


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(values * 255.0).astype(np.uint8)).save(path, compress_level=1)


def _side(image_size: int | Sequence[int]) -> int:
    """Give the side; ``anomalib benchmark`` hands a single number over as a pair."""
    if isinstance(image_size, int):
        return image_size
    if len(set(image_size)) != 1:
        msg = f"TextureDefects draws square images; image_size is {tuple(image_size)}, give one side"
        raise InvalidInputError(msg)
    return image_size[0]


def _check_arguments(category: str, image_size: int, seed: int) -> None:
    if category not in CATEGORIES:
        msg = f"TextureDefects has no category {category!r}; choose one of {', '.join(CATEGORIES)}"
        raise InvalidInputError(msg)
    if not 64 <= image_size <= 1024:
        msg = f"TextureDefects draws images of 64 to 1024 pixels a side, not {image_size}"
        raise InvalidInputError(msg)
    if seed < 0:
        msg = f"the seed of TextureDefects must be 0 or more, not {seed}"
        raise InvalidInputError(msg)


def _default_root() -> Path:
    return platformdirs.user_cache_path("anomalib-defect-plugins") / "texture_defects"


def _fingerprint() -> str:
    """Eight digits of the code that draws: a changed drawing must not be served from a folder of the old one."""
    sources = (Path(__file__), Path(procedural.__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
