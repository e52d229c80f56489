"""A small PaDiM without pretrained weights, and an engine that trains it quietly on the CPU."""

from pathlib import Path
from typing import Any

from anomalib.engine import Engine
from anomalib.models import Padim


def padim(size: int = 64) -> Padim:
    """Return a PaDiM for square images of ``size`` pixels a side."""
    settings: Any = {"backbone": "test_resnet.r160_in1k", "layers": ["layer1", "layer2"], "pre_trained": False}
    pre_processor = Padim.configure_pre_processor((size, size))
    return Padim(**settings, n_features=16, pre_processor=pre_processor, visualizer=False)


def engine(folder: Path) -> Engine:
    """Return an engine that writes to ``folder``."""
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Engine(default_root_dir=folder, accelerator="cpu", **quiet)
