"""CODEBRIM: crops of photographs of concrete bridges, with defects of five types that may overlap.

Layout of the authors' classification data: ``train``, ``val`` and ``test``, each with ``background`` and ``defects``;
the types are in ``metadata/background.xml`` and ``metadata/defects.xml``. There are 7,729 crops: 6,481 for training,
616 for validation and 632 for testing; all crops of a photograph are in one split. Mundt et al., "Meta-learning
Convolutional Neural Architectures for Multi-target Concrete Defect Classification with the COncrete DEfect BRidge IMage
Dataset", CVPR 2019.
"""

from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from anomalib import TaskType
from anomalib.data.utils import Split, ValSplitMode
from torchvision.transforms.v2 import Transform

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data.dataclasses import GOOD, SEPARATOR
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset, reading
from anomalib_defect_plugins.data.published_layout import existing_file, existing_images
from anomalib_defect_plugins.data.sample_table import Sample, make_table

URL = "https://doi.org/10.5281/zenodo.2620293"
"""Record of the authors."""

ARCHIVE = "CODEBRIM_classification_dataset.zip"
"""File of the record with the classification data."""

TYPES = {
    "Crack": "crack",
    "Spallation": "spallation",
    "Efflorescence": "efflorescence",
    "ExposedBars": "exposed_bars",
    "CorrosionStain": "corrosion",
}
"""Defect types by name in the metadata, in the order in which they are joined."""

UNSPECIFIED = "unspecified"
"""Type of a crop in ``defects`` without a type in the metadata."""

FOLDERS = ("background", "defects")
"""Folders of normal and defective crops, and stems of their metadata files."""

ADVICE = (
    f"download {ARCHIVE} from {URL} (for non-commercial research and education only) and unpack it so that root "
    "contains train, val and test, each with background and defects, and metadata with background.xml and defects.xml"
)


class Codebrim(DefectDataModule):
    """CODEBRIM: crops of concrete with up to five defect types each, image labels only. It is not downloaded.

    The licence allows non-commercial research and education, and no redistribution. Download the archive (8 GB) from
    the authors' record (``URL``) and unpack it with 7-Zip: ``unzip`` and Python's ``zipfile`` are reported to fail.

    Several types of a crop are joined: ``crack+efflorescence``. Crops have many sizes; their ``group`` is the
    photograph. Defective crops of the training split go to ``train_defects``.

    Args:
        root: Folder with ``train``, ``val``, ``test`` and ``metadata``, or with the archive's folder
            ``classification_dataset``, which contains them.
        val_split_mode: ``from_dir`` for the published validation split; for others see ``ValSplitMode``.
        train_on_all: Whether the training split has the images of all splits, as Defect-GAN's are for the distances of
            its Table 1; the other splits stay as they are, so no test result is valid.
        kwargs: Batch sizes, workers, augmentations, validation ratio and seed, as in ``DefectDataModule``.

    Raises:
        MissingDataError: On setup, if a file is missing; the message says what to download from where.
        InvalidInputError: On setup, if the metadata cannot be read or contradicts the folders.
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/CODEBRIM",
        val_split_mode: ValSplitMode | str = ValSplitMode.FROM_DIR,
        train_on_all: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, val_split_mode=val_split_mode, **kwargs)
        self.train_on_all = train_on_all

    @property
    def folder(self) -> Path:
        """Folder with the splits."""
        inner = self.root / "classification_dataset"
        return inner if inner.is_dir() else self.root

    def _setup(self, _stage: str | None = None) -> None:
        splits = list(Split) if self.train_on_all else [Split.TRAIN]
        self.train_data, self.train_defects = (
            reduce(add, (CodebrimDataset(self.folder, split, (folder,)) for split in splits)) for folder in FOLDERS
        )
        self.test_data = CodebrimDataset(self.folder, Split.TEST)
        if self.val_split_mode == ValSplitMode.FROM_DIR:
            self.val_data = CodebrimDataset(self.folder, Split.VAL)


class CodebrimDataset(CheckedDataset):
    """Crops of one split of CODEBRIM.

    Args:
        root: Folder with ``train``, ``val``, ``test`` and ``metadata``.
        split: ``train``, ``val`` or ``test``.
        folders: ``background``, ``defects`` or both.
        augmentations: Augmentations of the images.

    Raises:
        MissingDataError: If a folder or the metadata is missing.
        InvalidInputError: If the metadata cannot be read or contradicts the folders.
    """

    def __init__(
        self,
        root: Path | str,
        split: Split | str,
        folders: tuple[str, ...] = FOLDERS,
        augmentations: Transform | None = None,
    ) -> None:
        super().__init__(augmentations=augmentations)
        self.split = Split(split)
        samples = [sample for folder in folders for sample in _samples(Path(root), self.split, folder)]
        self.samples = make_table(samples, TaskType.CLASSIFICATION)


def read_types(path: Path) -> dict[str, str]:
    """Read the types of each crop from a metadata file.

    Returns:
        Types joined by ``+``, empty without a type, by file name of the crop.

    Raises:
        MissingDataError: If the file does not exist.
        InvalidInputError: If it cannot be read.
    """
    with reading("metadata", existing_file(path, ADVICE)):
        crops = ET.parse(path).getroot()  # noqa: S314 - expat limits the expansion of entities
        return {crop.get("name", ""): SEPARATOR.join(_types(crop)) for crop in crops}


def _types(crop: ET.Element) -> Iterator[str]:
    for name, defect_type in TYPES.items():
        flag = crop.findtext(name, "").strip()
        if flag not in {"0", "1"}:
            msg = f"{name} of {crop.get('name')} is {flag!r}; it must be 0 or 1"
            raise ValueError(msg)
        if flag == "1":
            yield defect_type


def _samples(root: Path, split: Split, folder: str) -> Iterator[Sample]:
    metadata = root / "metadata" / f"{folder}.xml"
    types = read_types(metadata)
    for path in existing_images(root / split.value / folder, ADVICE):
        # The balanced archive has copies of crops: NAME_-_1.png, NAME_-_2.png ...
        name = path.stem.partition("_-_")[0]
        if name + path.suffix not in types:
            msg = f"crop {path} is not in {metadata}; {ADVICE}"
            raise InvalidInputError(msg)
        defect_type = _defect_type(types[name + path.suffix], path, metadata)
        yield Sample(str(path), split.value, defect_type, group=_photo(name))


def _defect_type(types: str, path: Path, metadata: Path) -> str:
    """Return the defect type of a crop, whose types in the metadata must agree with its folder."""
    if path.parent.name == FOLDERS[1]:
        return types or UNSPECIFIED
    if types:
        msg = f"crop {path} is of the background but has type {types} in {metadata}; {ADVICE}"
        raise InvalidInputError(msg)
    return GOOD


def _photo(name: str) -> str:
    """Return the photograph of a crop: ``image_0000468`` of ``image_0000468_crop_0000001``."""
    return name.partition("_crop_")[0]
