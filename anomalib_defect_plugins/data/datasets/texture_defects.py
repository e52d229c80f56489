"""The embedded data set: photographs of three textures with drawn defects.

The textures are ``brick``, ``grass`` and ``gravel``, grey photographs of 512x512 pixels included in scikit-image.
Training crops come from the left half of a photograph, validation and test crops from the right half. Defects are drawn
by :mod:`anomalib_defect_plugins.generators.procedural`, so the masks are exact.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import platformdirs
from anomalib.data.utils import Split, ValSplitMode
from PIL import Image
from skimage import data as photographs
from skimage.transform import resize
from torchvision.transforms.v2 import Transform

from anomalib_defect_plugins.core.checks import check_not_negative, check_number, check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.data.dataclasses import GOOD
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset
from anomalib_defect_plugins.data.published_layout import existing_file
from anomalib_defect_plugins.data.sample_table import Sample, make_table
from anomalib_defect_plugins.generators import procedural

T = TypeVar("T", bound=np.generic)

CATEGORIES = ("brick", "grass", "gravel")
"""The textures."""

COUNTS = {Split.TRAIN: (40, 0), Split.VAL: (20, 20), Split.TEST: (30, 60)}
"""Numbers of normal and defective images of each split; the defect types alternate."""

CROP = 256
"""Side of a crop in pixels of the photograph, for every image size."""

TEXTURE_STD = 0.06
"""Standard deviation of the softened photographs, for intensities in [0, 1]."""


class TextureDefects(DefectDataModule):
    """Embedded data: crops of photographs with drawn defects of six types and exact masks. No download is needed.

    Each category has 40 normal training images, 20 normal and 20 defective validation images, and 30 normal and 60
    defective test images, 10 of each type. The images are built within seconds on first use, and kept.

    Args:
        root: Folder to keep the images in; by default the user's cache folder.
        category: ``brick``, ``grass`` or ``gravel``.
        image_size: Side of the images in pixels, 64 to 1024; or height and width, which must be equal.
        num_workers: Number of data loading processes.
        val_split_mode: ``from_dir`` for the embedded validation images; for others see ``ValSplitMode``.
        seed: Seed of crops, defects and splits; each seed is a different data set.
        kwargs: Batch sizes, augmentations and validation ratio, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: If the category, size or seed is invalid.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        category: str = "brick",
        image_size: int | tuple[int, int] = 256,
        # Starting a worker process would take longer than reading these few small files.
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
        """Folder of the images; its name depends on category, size, seed and the version of the drawing code."""
        return self.root / f"{self.category}-{self.image_size}-seed{self.seed}-{_fingerprint()}"

    def prepare_data(self) -> None:
        """Build the data set if it does not exist."""
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
        folder: Folder written by :func:`build`.
        split: ``train``, ``val`` or ``test``.
        augmentations: Augmentations of images and masks.

    Raises:
        MissingDataError: If a file of the split is missing.
    """

    def __init__(self, folder: Path, split: Split | str, augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        self.split = Split(split)
        self.samples = make_table(_samples(Path(folder), self.split))


def build(folder: Path, category: str, image_size: int, seed: int) -> None:
    """Draw all splits of a category into ``folder``, which appears once it is complete.

    The layout is that of MVTec AD with a level for the split: ``test/crack/000.png``,
    ``ground_truth/test/crack/000.png``.

    Args:
        folder: Folder to create.
        category: ``brick``, ``grass`` or ``gravel``.
        image_size: Side of the images in pixels.
        seed: Seed of crops and defects.
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


def soften(photo: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Reduce the contrast of a photograph to a standard deviation of ``TEXTURE_STD``.

    The photographs were taken in sunlight; inspected surfaces are lit diffusely, so that defects stand out.

    Args:
        photo: Photograph, shape (H, W), in [0, 1].
    """
    softened: npt.NDArray[np.float32] = photo.mean() + (photo - photo.mean()) * (TEXTURE_STD / photo.std())
    return softened


def region(photo: npt.NDArray[T], split: Split) -> npt.NDArray[T]:
    """Return the half of a photograph that the images of a split are cropped from.

    The halves are left and right because the rows of bricks shrink towards the top while the two sides are symmetric.

    Args:
        photo: Photograph, shape (H, W).
        split: Split of the images.

    Returns:
        Left half for training, right half for validation and test, shape (H, W / 2).
    """
    middle = photo.shape[1] // 2
    return photo[:, :middle] if split == Split.TRAIN else photo[:, middle:]


def draw_sample(
    texture: npt.NDArray[np.floating[Any]],
    kind: str,
    image_size: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Take a random crop, vary its exposure slightly, and draw a defect unless ``kind`` is ``good``.

    Args:
        texture: Texture, shape (H, W), float in [0, 1], both sides at least ``CROP``.
        kind: ``good`` or a defect type.
        image_size: Side of the result in pixels.
        rng: Source of all randomness. The crop does not depend on ``kind``.

    Returns:
        Image, shape (image_size, image_size, 3), float32 in [0, 1], and mask, shape (image_size, image_size), bool.
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
    advice = f"delete the folder {folder} to build it again"
    for entry in _entries(split):
        image = existing_file(folder / entry.image, advice)
        mask = existing_file(folder / entry.mask, advice) if entry.mask else ""
        yield Sample(image, split.value, entry.kind, mask)


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(values * 255.0).astype(np.uint8)).save(path, compress_level=1)


def _side(image_size: int | Sequence[int]) -> int:
    """Return the side in pixels; ``anomalib benchmark`` passes a single number as a pair."""
    if isinstance(image_size, int):
        return image_size
    if len(set(image_size)) != 1:
        msg = f"image_size is {tuple(image_size)}; height and width must be equal"
        raise InvalidInputError(msg)
    return image_size[0]


def _check_arguments(category: str, image_size: int, seed: int) -> None:
    check_one_of("category", category, CATEGORIES)
    check_number("image_size", image_size, 64, 1024)
    check_not_negative(seed=seed)


def _default_root() -> Path:
    return platformdirs.user_cache_path("anomalib-defect-plugins") / "texture_defects"


def _fingerprint() -> str:
    """Return eight digits of a hash of the drawing code, so that images of another version are not reused."""
    sources = (Path(__file__), Path(procedural.__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
