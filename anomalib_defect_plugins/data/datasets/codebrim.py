"""CODEBRIM: crops of photographs of concrete bridges, with defects of five types that overlap.

Read in its authors' layout of the classification data: ``train``, ``val`` and ``test``, each with ``background`` and
``defects``, and the types in ``metadata/background.xml`` and ``metadata/defects.xml``. 7,729 crops: 6,481 train, 616
validate, 632 test; all crops of a photograph are in one split. Mundt et al., "Meta-learning Convolutional Neural
Architectures for Multi-target Concrete Defect Classification with the COncrete DEfect BRidge IMage Dataset", CVPR 2019.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from anomalib import TaskType
from anomalib.data.utils import Split, ValSplitMode
from torchvision.transforms.v2 import Transform

from anomalib_defect_plugins.data.dataset import CheckedDataset, image_files, reading
from anomalib_defect_plugins.data.dataclasses import GOOD, SEPARATOR
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, existing, make_table
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError

URL = "https://doi.org/10.5281/zenodo.2620293"
"""The authors' record."""

ARCHIVE = "CODEBRIM_classification_dataset.zip"
"""The file of the record that is read here."""

TYPES = {
    "Crack": "crack",
    "Spallation": "spallation",
    "Efflorescence": "efflorescence",
    "ExposedBars": "exposed_bars",
    "CorrosionStain": "corrosion",
}
"""Types of defect by their name in the metadata, in the order in which they are joined."""

UNSPECIFIED = "unspecified"
"""Type of a crop among the defects for which the metadata names no type."""

FOLDERS = ("background", "defects")
"""Folders of normal and of defective crops, and names of the metadata."""

ADVICE = (
    f"fetch {ARCHIVE} from {URL} (for non-commercial research and education only) and unpack it such that root holds "
    "train, val and test, each with background and defects, and metadata with background.xml and defects.xml"
)


class Codebrim(DefectDataModule):
    """CODEBRIM: crops of concrete with up to five types of defect each, image labels only. Nothing is downloaded.

    The licence allows non-commercial research and education, and no redistribution. Fetch the archive (8 GB) from the
    authors' record (``URL``) and unpack it with 7-Zip: ``unzip`` and Python's ``zipfile`` are said to fail on it.

    A crop of several types has them joined: ``crack+efflorescence``. Crops are of many sizes; ``group`` is the
    photograph that they are from. Defective crops of the training split go to ``train_defects``.

    Args:
        root: Folder that holds ``train``, ``val``, ``test`` and ``metadata``, or the archive's folder
            ``classification_dataset`` that does.
        val_split_mode: ``from_dir`` uses the published validation split; for others see ``ValSplitMode``.
        kwargs: Batch sizes, processes, augmentations, validation share and seed, as in ``DefectDataModule``.

    Raises:
        MissingDataError: On setup: something is missing; the message says what to fetch from where.
        InvalidInputError: On setup: the metadata cannot be read or contradicts the folders.
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/CODEBRIM",
        val_split_mode: ValSplitMode | str = ValSplitMode.FROM_DIR,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, val_split_mode=val_split_mode, **kwargs)

    @property
    def folder(self) -> Path:
        """The folder that holds the splits."""
        inner = self.root / "classification_dataset"
        return inner if inner.is_dir() else self.root

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = CodebrimDataset(self.folder, Split.TRAIN, FOLDERS[:1])
        self.train_defects = CodebrimDataset(self.folder, Split.TRAIN, FOLDERS[1:])
        self.test_data = CodebrimDataset(self.folder, Split.TEST)
        if self.val_split_mode == ValSplitMode.FROM_DIR:
            self.val_data = CodebrimDataset(self.folder, Split.VAL)


class CodebrimDataset(CheckedDataset):
    """Crops of one split of CODEBRIM.

    Args:
        root: Folder that holds ``train``, ``val``, ``test`` and ``metadata``.
        split: ``train``, ``val`` or ``test``.
        folders: ``background``, ``defects`` or both.
        augmentations: Augmentations of the images.

    Raises:
        MissingDataError: A folder or the metadata is missing.
        InvalidInputError: The metadata cannot be read or contradicts the folders.
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
    """Read a metadata file: the types of each crop, joined by ``+`` and empty for none, by the name of its file.

    Raises:
        MissingDataError: There is no such file.
        InvalidInputError: It cannot be read.
    """
    with reading("metadata", existing(path, ADVICE)):
        crops = ET.parse(path).getroot()  # noqa: S314 - the parser itself limits what entities expand to
        return {crop.get("name", ""): SEPARATOR.join(_types(crop)) for crop in crops}


def _types(crop: ET.Element) -> Iterator[str]:
    for name, kind in TYPES.items():
        flag = crop.findtext(name, "").strip()
        if flag not in {"0", "1"}:
            msg = f"{name} of {crop.get('name')} is {flag!r}, neither 0 nor 1"
            raise ValueError(msg)
        if flag == "1":
            yield kind


def _samples(root: Path, split: Split, folder: str) -> Iterator[Sample]:
    metadata = root / "metadata" / f"{folder}.xml"
    types = read_types(metadata)
    for path in _crops(root / split.value / folder):
        # The balanced archive repeats crops, as NAME_-_1.png and so on.
        name = path.stem.partition("_-_")[0]
        if name + path.suffix not in types:
            msg = f"crop {path} is not in {metadata}; {ADVICE}"
            raise InvalidInputError(msg)
        yield Sample(str(path), split.value, _checked(types[name + path.suffix], path, metadata), group=_photo(name))


def _crops(folder: Path) -> list[Path]:
    crops = image_files(folder) if folder.is_dir() else []
    if not crops:
        msg = f"{folder} is missing or holds no image; {ADVICE}"
        raise MissingDataError(msg)
    return crops


def _checked(types: str, path: Path, metadata: Path) -> str:
    if path.parent.name == FOLDERS[1]:
        return types or UNSPECIFIED
    if types:
        msg = f"crop {path} is of the background but {metadata} says {types}; {ADVICE}"
        raise InvalidInputError(msg)
    return GOOD


def _photo(name: str) -> str:
    """The photograph of ``image_0000468_crop_0000001``."""
    return name.partition("_crop_")[0]
