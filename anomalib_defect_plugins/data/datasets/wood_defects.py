"""WOOD: boards with knots and other defects, and segmentation labels.

The images come from the wood database of the University of Oulu: Silvén, Niskanen, Kauppinen, "Wood inspection with
non-supervised clustering", Machine Vision and Applications 13, 2003. The authors offer samples on their page and more
on request, and ask for a citation. There is no published layout, selection of images or labels, so the layout is
defined by this package.
"""

from pathlib import Path
from typing import Any, ClassVar

from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder

URL = "http://www.ee.oulu.fi/~olli/Projects/Lumber.Grading.html"
"""Page of the authors."""

NORMAL, DEFECT, LABELS = "normal", "defect", "labels"
"""Folders of normal images, defective images, and labels of the defective images."""


class WoodDefects(DefectFolder):
    """WOOD: images of boards and segmentation labels, in the layout below. It is not downloaded.

    ::

        root/normal/0001.png  sound wood
        root/defect/0002.png  wood with a defect
        root/labels/0002.png  its label: 0 is sound, all other values are defective

    Download images from the page of the University of Oulu (``URL``) and add labels: the page classifies regions, but
    has no pixel labels.

    Args:
        root: Folder with ``normal``, ``defect`` and ``labels``.
        test_ratio: Share of the normal images in the test split, in [0, 1). At least one image is left for training.
        seed: Seed of the splits.
        kwargs: Batch sizes, workers, augmentations and validation split, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: As in ``DefectFolder``.
        MissingDataError: As in ``DefectFolder``; the message says what to download from where.
    """

    advice: ClassVar[str] = (
        f"root must contain {NORMAL}, {DEFECT} and {LABELS} (a label of the same name for each image of {DEFECT}); "
        f"images are available from {URL}"
    )

    def __init__(
        self, root: Path | str = "./datasets/WOOD", test_ratio: float = 0.2, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(
            root,
            normal_dir=NORMAL,
            defect_dirs=DEFECT,
            mask_dir=LABELS,
            name=type(self).__name__,
            test_ratio=test_ratio,
            seed=seed,
            **kwargs,
        )
