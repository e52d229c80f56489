"""How the fusions of HTP-GAN's scales find drawn defects, on photos that the demo does not offer.

    python experiments/demo/fusions.py --surfaces brick gravel grass

Trains on the top left quarter of a photo of scikit-image with the settings of the tab One photo. Good images are other
parts of the photo; those of brick leave its lower half out, which the demo offers. Defects are drawn on the other
quarters.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import markdown

from anomalib_defect_plugins.demo.services import one_photo_training
from anomalib_defect_plugins.demo.services.example_images import KINDS
from anomalib_defect_plugins.demo.services.one_photo_training import Training, TrainingSettings
from anomalib_defect_plugins.demo.services.predictions import predict_photo
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.demo.tabs.one_photo import PRESETS
from anomalib_defect_plugins.generators import draw_defect

SIDE = 256
"""Sides of the images."""

GOOD = {
    "brick": [(0, 256), (0, 64), (0, 190)],
    "gravel": [(0, 256), (256, 0), (256, 256), (128, 128), (64, 200), (200, 64)],
}
"""Corners of good images."""

MARKED = {"brick": [(0, 256), (0, 150)], "gravel": [(0, 256), (256, 0), (256, 256)]}
"""Corners of the images that defects are drawn on; any other surface has those of gravel."""

Pixels = npt.NDArray[np.uint8]


def images(surface: str, seeds: list[int]) -> tuple[Pixels, list[Pixels], dict[str, list[Pixels]]]:
    """Return the training image, good images, and defective ones by kind; each (256, 256, 3)."""
    photo = np.repeat(getattr(data, surface)()[..., None], 3, axis=2)

    def crop(corner: tuple[int, int]) -> Pixels:
        top, left = corner
        return np.asarray(photo[top : top + SIDE, left : left + SIDE])

    def drawn(corner: tuple[int, int], kind: str, seed: int) -> Pixels:
        marked = draw_defect(crop(corner) / np.float32(255), kind, np.random.default_rng(seed))[0]
        return (255 * marked).round().astype(np.uint8)

    corners = MARKED.get(surface, MARKED["gravel"])
    defects = {kind: [drawn(corner, kind, seed) for corner in corners for seed in seeds] for kind in KINDS}
    return crop((0, 0)), [crop(corner) for corner in GOOD.get(surface, GOOD["gravel"])], defects


def evaluate(surface: str, share: float, settings: TrainingSettings, seed: int) -> dict[str, Any]:
    """Train, and count the defective images above all good ones, and those missed at the threshold."""
    one_photo_training.SCORE_SHARE = share
    reference, good, defects = images(surface, [11, 12, 13])
    training = Training(Photo("photo.png", reference, (SIDE, SIDE)), settings, seed)
    training.run()
    if training.model is None:
        raise SystemExit(training.progress().error)
    model = training.model

    def scores(pixels: list[Pixels]) -> list[float]:
        return [float(predict_photo(model, Photo("photo.png", one, (SIDE, SIDE))).score) for one in pixels]

    highest = max(scores(good))
    found = {kind: scores(pixels) for kind, pixels in defects.items()}
    row: dict[str, Any] = {"surface": surface, "share": share}
    row |= {kind: f"{sum(score > highest for score in values)}/{len(values)}" for kind, values in found.items()}
    missed = sum(score < 0.5 for values in found.values() for score in values)
    return row | {"missed": f"{missed}/{sum(map(len, found.values()))}", "highest good": highest}


def main() -> None:
    """Print a row per surface and share."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--surfaces", nargs="*", default=["brick", "gravel", "grass"])
    parser.add_argument("--shares", nargs="*", type=float, default=[one_photo_training.SCORE_SHARE])
    parser.add_argument("--iterations", type=int, help="steps of a scale; by default those of the tab")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    preset = list(PRESETS.values())[-1]
    settings = TrainingSettings(preset.side, preset.scales, options.iterations or preset.iterations)
    rows = [evaluate(name, share, settings, options.seed) for name in options.surfaces for share in options.shares]
    sys.stdout.write(f"{markdown(rows)}\n")


if __name__ == "__main__":
    main()
