"""Tiles and whole images that are scaled down: KolektorSDD at full size, and 4096 x 4096 with tiny defects.

    DEFECT_DATA_ROOT=... python experiments/large_images.py kolektor_sdd
    DEFECT_DATA_ROOT=... python experiments/large_images.py kolektor_sdd --model onestage
    python experiments/large_images.py synthetic

PaDiM is trained on normal images, OneStage also on the cracked images of the training folds. ``synthetic`` writes its
images, texture of all scales with light spots of 8 pixels, to a temporary folder. An image is found if its score is
higher than those of 95 % of the normal test images; a pixel, if it is higher than 99.9 % of the pixels of normal test
images; a defect, if the map in it, or within 8 pixels around it, is higher than all of these.
"""

import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from anomalib.data import AnomalibDataModule, Folder
from anomalib.data.utils import LabelName
from anomalib.models.components import AnomalibModule
from common import QUIET, add_run_options, create_engine, create_padim, data_root, timed_fit
from lightning.pytorch import Callback
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

from anomalib_defect_plugins.data import KolektorSdd, WithDefects, WithTiles
from anomalib_defect_plugins.models.onestage import OneStage

SIDE, SPOT = 4096, 8
"""Sides of the synthetic images and of their defects in pixels."""

SCALES, CONTRAST = (1, 4, 16, 64, 256), 8
"""Sides of the grains of the synthetic texture in pixels, and the standard deviation of each in grey levels."""

MARGIN = 8
"""Distance from a defect, in pixels, within which it counts as found."""

STEP = 7
"""Every seventh pixel of normal images is kept."""


class Predictions(Callback):
    """Collects the scores of images, and the values of their maps at the original size.

    Args:
        datamodule: Data module, whose masks are read at the original size.
    """

    def __init__(self, datamodule: AnomalibDataModule) -> None:
        self.datamodule = datamodule
        self.scores: dict[int, list[float]] = {0: [], 1: []}
        self.normal: list[npt.NDArray[np.float32]] = []
        self.marked: list[npt.NDArray[np.float32]] = []
        self.found: list[float] = []

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: object) -> None:
        """Collect the values of a batch of one image."""
        del trainer, pl_module
        mask = self._mask(batch.image_path[0])
        maps = outputs.anomaly_map.reshape(1, 1, *outputs.anomaly_map.shape[-2:]).float()
        values = F.interpolate(maps, mask.shape, mode="bilinear")[0, 0].numpy()
        self.scores[int(mask.any())].append(float(outputs.pred_score.flatten()[0]))
        if not mask.any():
            self.normal.append(np.append(values.flatten()[::STEP], values.max()))
            return
        self.marked.append(values[mask])
        defects, _ = ndimage.label(mask, np.ones((3, 3)))
        for bounds in ndimage.find_objects(defects):
            rows, columns = (slice(max(0, side.start - MARGIN), side.stop + MARGIN) for side in bounds)
            self.found.append(float(values[rows, columns].max()))

    def _mask(self, path: str) -> npt.NDArray[np.bool_]:
        dataset = self.datamodule.test_data
        before, dataset.augmentations = dataset.augmentations, None
        item: Any = dataset[list(dataset.samples.image_path).index(path)]
        dataset.augmentations = before
        mask: npt.NDArray[np.bool_] = item.gt_mask.numpy() > 0
        return mask

    def figures(self) -> str:
        """Return the shares of images, defects and pixels that are found, and the images' AUROC."""
        normal, defective = (np.array(self.scores[label]) for label in (0, 1))
        pixels, found = np.concatenate(self.normal), np.array(self.found)
        figures = {
            "image AUROC": (defective[:, None] > normal).mean(),
            "images found": (defective > np.quantile(normal, 0.95)).mean(),
            "defects found": (found > pixels.max()).mean(),
            "pixels found": (np.concatenate(self.marked) > np.quantile(pixels, 0.999)).mean(),
        }
        counts = f"{len(normal)} normal and {len(defective)} defective images, {len(found)} defects"
        return f"{counts}: {', '.join(f'{name} {value:.3f}' for name, value in figures.items())}"


def write_images(root: Path, train: int, normal: int, defective: int) -> None:
    """Write the synthetic images: texture of all scales, and in defective ones five spots of a lighter grey."""
    rng = np.random.default_rng(0)
    for folder, number in (("train", train), ("normal", normal), ("defective", defective)):
        for index in range(number):
            image = np.full((SIDE, SIDE), 120, np.float32)
            for scale in SCALES:
                noise = Image.fromarray(rng.normal(0, CONTRAST, (SIDE // scale,) * 2).astype(np.float32))
                image += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            mask = np.zeros((SIDE, SIDE), np.uint8)
            for top, left in rng.integers(64, SIDE - 64, (5, 2)) if folder == "defective" else ():
                mask[top : top + SPOT, left : left + SPOT] = 255
            image[mask > 0] += 60
            for name, pixels in ((folder, image), ("masks", mask)):
                if name != "masks" or mask.any():
                    (root / name).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{index:03}.png")


def reduce_test(datamodule: AnomalibDataModule, normal: int, train: int) -> None:
    """Keep some of the normal images, evenly spaced, and all defective ones."""
    for name, number in (("train", train), ("test", normal)):
        dataset = getattr(datamodule, f"{name}_data")
        rows = np.flatnonzero(dataset.samples.label_index == LabelName.NORMAL)
        kept = set(rows[np.linspace(0, len(rows) - 1, min(number, len(rows))).round().astype(int)])
        kept |= set(np.flatnonzero(dataset.samples.label_index == LabelName.ABNORMAL)) if name == "test" else set()
        setattr(datamodule, f"{name}_data", dataset.subsample(sorted(kept)))


class Reduced(KolektorSdd):
    """KolektorSDD at full size with fewer normal images, without validation."""

    def __init__(self, train: int, normal: int, **arguments: Any) -> None:
        super().__init__(image_size=None, val_split_mode="none", **arguments)
        self.counts = (normal, train)

    def _setup(self, stage: str | None = None) -> None:
        super()._setup(stage)
        reduce_test(self, *self.counts)


def create_model(name: str) -> AnomalibModule:
    """Create PaDiM, or OneStage with the score of regimes.yaml for KolektorSDD, for 256 x 256 pixels."""
    torch.manual_seed(0)
    if name == "padim":
        return create_padim(post_processor=False, **QUIET)
    return OneStage(image_size=(256, 256), spread_weight=0, post_processor=False, **QUIET)


def run(name: str, model: AnomalibModule, data: AnomalibDataModule, folder: Path) -> None:
    """Train and predict, and print the figures."""
    engine = create_engine(folder)
    seconds = timed_fit(engine, model, data)
    predictions = Predictions(data)
    engine.trainer.callbacks.append(predictions)
    engine.predict(model, datamodule=data, return_predictions=False)
    print(f"{name}: {len(data.train_data)} training samples, {seconds:.0f} s; {predictions.figures()}", flush=True)


def main() -> None:
    """Run both."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["kolektor_sdd", "synthetic"])
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--per-image", type=int, default=6, help="training tiles of an image")
    parser.add_argument("--train", type=int, default=60, help="training images")
    parser.add_argument("--normal", type=int, default=40, help="normal test images")
    parser.add_argument("--defective", type=int, default=4, help="synthetic defective images")
    parser.add_argument("--model", choices=["padim", "onestage"], default="padim")
    add_run_options(parser, "large_images")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loader = {"train_batch_size": 8, "eval_batch_size": 1, "num_workers": options.workers}
    with tempfile.TemporaryDirectory() as temporary:
        if options.data == "synthetic":
            write_images(Path(temporary), options.train, options.normal, options.defective)

        def data() -> AnomalibDataModule:
            if options.data == "kolektor_sdd":
                parts = Reduced(options.train, options.normal, root=data_root("kolektor_sdd"), **loader)
                return parts if options.model == "padim" else WithDefects(parts, real="all")
            names = {"normal_dir": "train", "normal_test_dir": "normal", "abnormal_dir": "defective"}
            return Folder("synthetic", root=temporary, mask_dir="masks", val_split_mode="none", **names, **loader)

        run("scaled down to 256 x 256", create_model(options.model), data(), options.out)
        tiles = WithTiles(data(), options.tile, per_image=options.per_image, max_map_pixels=SIDE * SIDE)
        tiles.tile_batch_size = 8
        run(f"tiles of {options.tile}", create_model(options.model), tiles, options.out)


if __name__ == "__main__":
    main()
