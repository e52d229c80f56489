"""CrackForest (CFD): 480x320 photographs of pavement, the CRACK set of HTP-GAN's paper.

Read in its authors' layout: ``image/NNN.jpg`` and ``groundTruth/NNN.mat``. Images 001-118 show cracks and have masks;
201-208 show none; 301-329 have no ground truth and are left out. Shi et al., "Automatic road crack detection using
random structured forests", IEEE Transactions on Intelligent Transportation Systems 17(12), 2016.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import LabelName, Split, ValSplitMode
from anomalib.utils.path import resolve_dataset_root
from pandas import DataFrame
from scipy.io import loadmat
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data.base import CheckedDataset
from anomalib_defect_plugins.data.download import download_files
from anomalib_defect_plugins.errors import MissingDataError

logger = logging.getLogger(__name__)

URL = "https://github.com/cuilimeng/CrackForest-dataset/archive/refs/heads/master.zip"
"""The authors' repository as an archive."""

DIGEST = "e19cf641686f0aa6f0d07c7d85dcf4acdb38d9c6a3e07cced3e688ecd8fafe6e"
"""SHA-256 of the files used, see :func:`~anomalib_defect_plugins.data.download.content_digest`."""

CRACK_LABEL = 2
"""The crack in ``groundTruth[0, 0]['Segmentation']``: 1 is background, and labels above 2 are further background."""

CRACKED = range(1, 119)
"""Numbers of the images with cracks and masks."""

CRACK_FREE = range(201, 209)
"""Numbers of the images without a crack."""

LAYOUT = "image/NNN.jpg (001-118 and 201-208) and groundTruth/NNN.mat (001-118)"


class CrackForest(AnomalibDataModule):
    """CrackForest: 8 crack-free images to train with, all 118 images with cracks to test. For research only.

    The test set is the published one and has no normal image, so image-level measures mean nothing on it; pixel-level
    ones do. A missing root is downloaded from the authors' repository. The licence allows non-commercial research.

    Args:
        root: Folder that holds ``image`` and ``groundTruth``; ``None`` is anomalib's folder of data sets.
        train_batch_size: Batch size in training.
        eval_batch_size: Batch size in validation and test.
        num_workers: Processes that read images.
        train_augmentations: Augmentations of the training images.
        val_augmentations: Augmentations of the validation images.
        test_augmentations: Augmentations of the test images.
        augmentations: Augmentations where none of the stage is given.
        val_split_mode: The set has no validation images, so the default is ``same_as_test``, as anomalib does for such
            sets. A threshold that a post-processor fits to them has then seen the test labels; with ``none``,
            ``from_train`` or ``synthetic`` it has not.
        val_split_ratio: Share of validation images, for the modes that split.
        seed: Seed of a split.
    """

    def __init__(
        self,
        root: Path | str | None = "./datasets/CrackForest",
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        # All of it is read in less time than processes that read it take to start.
        num_workers: int = 0,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = None,
    ) -> None:
        # No test split mode: with "from_dir" anomalib would move half of the few normal images to a test set that has
        # none, and the published split would be lost.
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        self.root = resolve_dataset_root(root, "CrackForest")

    def prepare_data(self) -> None:
        """Download the data set if the root is missing or empty.

        Raises:
            MissingDataError: The download failed; the message says what to put where.
        """
        if self.root.is_dir() and any(self.root.iterdir()):
            return
        logger.warning("CrackForest may be used for non-commercial research only; downloading it from %s", URL)
        try:
            download_files(URL, self.root, [*_image_names(), *_mask_names()], DIGEST)
        except MissingDataError as error:
            msg = f"{error}; download it by hand and unpack it such that {self.root} holds {LAYOUT}"
            raise MissingDataError(msg) from error

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = CrackForestDataset(self.root, Split.TRAIN)
        self.test_data = CrackForestDataset(self.root, Split.TEST)


class CrackForestDataset(CheckedDataset):
    """One split of CrackForest; masks are read from the ``.mat`` files themselves.

    Args:
        root: Folder that holds ``image`` and ``groundTruth``.
        split: ``train`` (201-208) or ``test`` (001-118).
        augmentations: Augmentations of images and masks.

    Raises:
        MissingDataError: A file is missing.
    """

    def __init__(self, root: Path | str, split: Split | str, augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        self.split = Split(split)
        self.samples = _make_samples(Path(root), self.split)

    def load_mask(self, path: str) -> Mask:
        """Read the mask in a ``.mat`` file: (H, W), uint8, 1 on the crack."""
        segmentation = np.asarray(loadmat(path)["groundTruth"][0, 0]["Segmentation"])
        return Mask(torch.from_numpy(segmentation == CRACK_LABEL), dtype=torch.uint8)


def _image_names() -> list[str]:
    return [f"image/{number:03}.jpg" for number in (*CRACKED, *CRACK_FREE)]


def _mask_names() -> list[str]:
    return [f"groundTruth/{number:03}.mat" for number in CRACKED]


def _make_samples(root: Path, split: Split) -> DataFrame:
    rows = []
    for number in CRACK_FREE if split == Split.TRAIN else CRACKED:
        image = _existing(root, f"image/{number:03}.jpg")
        mask = _existing(root, f"groundTruth/{number:03}.mat") if split == Split.TEST else ""
        label = LabelName.ABNORMAL if mask else LabelName.NORMAL
        rows.append((image, split.value, label.name.lower(), int(label), mask, "crack" if mask else "good"))
    samples = DataFrame(rows, columns=["image_path", "split", "label", "label_index", "mask_path", "defect_type"])
    samples.attrs["task"] = "segmentation"
    return samples


def _existing(root: Path, name: str) -> str:
    if not (root / name).is_file():
        msg = f"CrackForest: {root / name} is missing; {root} must hold {LAYOUT}, to be had from {URL}"
        raise MissingDataError(msg)
    return str(root / name)
