"""CrackForest (CFD): 480x320 photographs of pavement with and without cracks.

Layout of the authors: ``image/NNN.jpg`` and ``groundTruth/NNN.mat``. Images 001-118 show cracks and have masks,
201-208 show none, 301-329 have no ground truth and are not used. Shi et al., "Automatic road crack detection using
random structured forests", IEEE Transactions on Intelligent Transportation Systems 17(12), 2016.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data.utils import Split
from scipy.io import loadmat
from torchvision.transforms.v2 import Transform
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.data.datamodule import DefectDataModule
from anomalib_defect_plugins.data.dataset import CheckedDataset
from anomalib_defect_plugins.data.download import download_if_missing
from anomalib_defect_plugins.data.published_layout import existing_file
from anomalib_defect_plugins.data.sample_table import Sample, make_table

URL = "https://github.com/cuilimeng/CrackForest-dataset/archive/refs/heads/master.zip"
"""Archive of the authors' repository."""

DIGEST = "e19cf641686f0aa6f0d07c7d85dcf4acdb38d9c6a3e07cced3e688ecd8fafe6e"
"""SHA-256 of the files used, see :func:`~anomalib_defect_plugins.data.download.content_digest`."""

CRACK_LABEL = 2
"""Label of cracks in ``groundTruth[0, 0]['Segmentation']``; all other labels are background."""

CRACKED = range(1, 119)
"""Numbers of the images with cracks and masks."""

CRACK_FREE = range(201, 209)
"""Numbers of the images without a crack."""

LAYOUT = "image/NNN.jpg (001-118 and 201-208) and groundTruth/NNN.mat (001-118)"


class CrackForest(DefectDataModule):
    """CrackForest: 8 images without cracks for training and all 118 images with cracks for testing.

    The published test set has no normal images, so only pixel-level metrics are meaningful. A missing root is
    downloaded from the authors' repository. The licence allows non-commercial research only.

    Args:
        root: Folder with ``image`` and ``groundTruth``.
        num_workers: Number of data loading processes.
        kwargs: Batch sizes, augmentations, validation split and seed, as in ``DefectDataModule``.
    """

    # Starting worker processes would take longer than reading all images.
    def __init__(self, root: Path | str | None = "./datasets/CrackForest", num_workers: int = 0, **kwargs: Any) -> None:
        super().__init__(root, num_workers=num_workers, **kwargs)

    def prepare_data(self) -> None:
        """Download the data set if the root is missing or empty.

        Raises:
            MissingDataError: If the download fails; the message says what to put where.
        """
        notice = "CrackForest may be used for non-commercial research only"
        download_if_missing(self.root, URL, [*_image_names(), *_mask_names()], LAYOUT, notice, digest=DIGEST)

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = CrackForestDataset(self.root, Split.TRAIN)
        self.test_data = CrackForestDataset(self.root, Split.TEST)


class CrackForestDataset(CheckedDataset):
    """One split of CrackForest; masks are read directly from the ``.mat`` files.

    Args:
        root: Folder with ``image`` and ``groundTruth``.
        split: ``train`` (201-208) or ``test`` (001-118).
        augmentations: Augmentations of images and masks.

    Raises:
        MissingDataError: If a file is missing.
    """

    def __init__(self, root: Path | str, split: Split | str, augmentations: Transform | None = None) -> None:
        super().__init__(augmentations=augmentations)
        self.split = Split(split)
        self.samples = make_table(_samples(Path(root), self.split))

    def load_mask(self, path: str) -> Mask:
        """Load the mask of a ``.mat`` file, shape (H, W), uint8, 1 on the crack."""
        segmentation = np.asarray(loadmat(path)["groundTruth"][0, 0]["Segmentation"])
        return Mask(torch.from_numpy(segmentation == CRACK_LABEL), dtype=torch.uint8)


def _image_names() -> list[str]:
    return [f"image/{number:03}.jpg" for number in (*CRACKED, *CRACK_FREE)]


def _mask_names() -> list[str]:
    return [f"groundTruth/{number:03}.mat" for number in CRACKED]


def _samples(root: Path, split: Split) -> Iterator[Sample]:
    advice = f"{root} must contain {LAYOUT}, available from {URL}"
    for number in CRACK_FREE if split == Split.TRAIN else CRACKED:
        image = existing_file(root / f"image/{number:03}.jpg", advice)
        if split == Split.TRAIN:
            yield Sample(image, split.value)
        else:
            yield Sample(image, split.value, "crack", existing_file(root / f"groundTruth/{number:03}.mat", advice))
