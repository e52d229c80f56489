"""Writes tiny data sets in the layout of real ones."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def write_crack_forest(root: Path, segmentation: np.ndarray) -> None:
    """Write CrackForest's layout: every image is noise, every crack image has the labels ``segmentation`` (H, W)."""
    for name in ("image", "groundTruth"):
        (root / name).mkdir(parents=True)
    for number in (*range(1, 119), *range(201, 209), *range(301, 330)):
        noise = Image.effect_noise(segmentation.shape[::-1], 60).convert("RGB")
        noise.save(root / "image" / f"{number:03}.jpg")
    for number in range(1, 119):
        truth = {"Segmentation": segmentation, "Boundaries": np.zeros_like(segmentation)}
        savemat(root / "groundTruth" / f"{number:03}.mat", {"groundTruth": truth})
