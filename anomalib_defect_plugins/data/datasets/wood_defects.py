"""WOOD, the other data set of HTP-GAN's paper: boards with knots and other defects, and segmentation labels.

The images come from the wood database of the University of Oulu: Silvén, Niskanen, Kauppinen, "Wood inspection with
non-supervised clustering", Machine Vision and Applications 13, 2003. Its authors offer samples on their page and more
on request, and ask that their origin be named. HTP-GAN's paper does not say which images it used, in what layout, or
where its labels are, so the layout here is ours.
"""

from pathlib import Path
from typing import Any, ClassVar

from anomalib_defect_plugins.data.datasets.defect_folder import DefectFolder

URL = "http://www.ee.oulu.fi/~olli/Projects/Lumber.Grading.html"
"""The authors' page."""

NORMAL, DEFECT, LABELS = "normal", "defect", "labels"
"""Folders of the normal images, of the defective ones, and of the labels of these."""


class WoodDefects(DefectFolder):
    """WOOD: images of boards and their segmentation labels, in a layout of our own. Nothing is downloaded.

    ::

        root/normal/0001.png  sound wood
        root/defect/0002.png  wood with a defect
        root/labels/0002.png  its label: 0 is sound, anything above is defect

    Fetch images from the page of the University of Oulu (``URL``), and put labels of your own beside them: the page
    names the classes of regions, but has no label of pixels.

    Args:
        root: Folder that holds ``normal``, ``defect`` and ``labels``.
        test_ratio: Share of the normal images that test, in [0, 1). One at least trains.
        seed: Seed of the splits.
        kwargs: Batch sizes, processes, augmentations and validation split, as in ``DefectDataModule``.

    Raises:
        InvalidInputError: As in ``DefectFolder``.
        MissingDataError: As in ``DefectFolder``; the message says what to fetch from where.
    """

    advice: ClassVar[str] = (
        f"root must hold {NORMAL}, {DEFECT} and {LABELS} (a label of the same name for each image of {DEFECT}); "
        f"images are to be had from {URL}"
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
