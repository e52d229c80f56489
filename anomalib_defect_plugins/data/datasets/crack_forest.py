"""CrackForest (CFD): 480x320 photographs of pavement, the CRACK set of HTP-GAN's paper.

Read in its authors' layout: ``image/NNN.jpg`` and ``groundTruth/NNN.mat``. Images 001-118 show cracks and have masks;
201-208 show none; 301-329 have no ground truth and are left out. Shi et al., "Automatic road crack detection using
random structured forests", IEEE Transactions on Intelligent Transportation Systems 17(12), 2016.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data.utils import Split
from scipy.io import loadmat
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data.dataset import CheckedDataset
from anomalib_defect_plugins.data.download import download_files
from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.sample_table import Sample, existing, make_table
from anomalib_defect_plugins.core.errors import MissingDataError

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


class CrackForest(DefectDataModule):
    """CrackForest: 8 crack-free images to train with, all 118 images with cracks to test. For research only.

    The test set is the published one and has no normal image, so image-level measures mean nothing on it; pixel-level
    ones do. A missing root is downloaded from the authors' repository. The licence allows non-commercial research.

    Args:
        root: Folder that holds ``image`` and ``groundTruth``.
        num_workers: Processes that read images.
        kwargs: Batch sizes, augmentations, validation split and seed, as in ``DefectDataModule``.
    """

    # All of it is read in less time than processes that read it take to start.
    def __init__(self, root: Path | str | None = "./datasets/CrackForest", num_workers: int = 0, **kwargs: Any) -> None:
        super().__init__(root, num_workers=num_workers, **kwargs)

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
        self.samples = make_table(_samples(Path(root), self.split))

    def load_mask(self, path: str) -> Mask:
        """Read the mask in a ``.mat`` file: (H, W), uint8, 1 on the crack."""
        segmentation = np.asarray(loadmat(path)["groundTruth"][0, 0]["Segmentation"])
        return Mask(torch.from_numpy(segmentation == CRACK_LABEL), dtype=torch.uint8)


def _image_names() -> list[str]:
    return [f"image/{number:03}.jpg" for number in (*CRACKED, *CRACK_FREE)]


def _mask_names() -> list[str]:
    return [f"groundTruth/{number:03}.mat" for number in CRACKED]


def _samples(root: Path, split: Split) -> Iterator[Sample]:
    advice = f"{root} must hold {LAYOUT}, to be had from {URL}"
    for number in CRACK_FREE if split == Split.TRAIN else CRACKED:
        image = existing(root / f"image/{number:03}.jpg", advice)
        if split == Split.TRAIN:
            yield Sample(image, split.value)
        else:
            yield Sample(image, split.value, "crack", existing(root / f"groundTruth/{number:03}.mat", advice))
