"""Operating points that go from checkpoints to exported graphs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openvino
import pytest
import torch
from bright_graph import bright_graph

from anomalib_defect_plugins.core.checkpoint_keys import OPERATING_POINT_KEY
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.deployment.operating_point import keep_operating_point
from anomalib_defect_plugins.inference.graph_checks import RegionRule, read_note, region_rule

NORMALIZED = {"normalized": True}

IMAGE = {"threshold": 0.7, "image_threshold": 0.7, "min_area": 1}
PIXEL = {"threshold": 0.7, "pixel_threshold": 0.7, "min_area": 1}
AREA = {**PIXEL, "min_area": 9}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    openvino.save_model(bright_graph(), tmp_path / "model.xml", compress_to_fp16=False)
    return tmp_path


def model(image: float, pixel: float = float("nan")) -> Any:
    """Stand in for a model with raw thresholds."""
    processor = SimpleNamespace(image_threshold=torch.tensor(image), pixel_threshold=torch.tensor(pixel))
    return SimpleNamespace(post_processor=processor)


@pytest.mark.parametrize(
    ("stored", "thresholds", "record", "note"),
    [
        (IMAGE, (0.7,), IMAGE, {**IMAGE, **NORMALIZED}),
        (None, (0.7,), {}, {}),
        (IMAGE, (0.6,), {}, {}),  # replaced since
        (PIXEL, (0.7, 0.7), PIXEL, {**PIXEL, **NORMALIZED}),
        (PIXEL, (0.6, 0.7), PIXEL, {}),  # verdicts follow from another threshold
        (AREA, (0.6, 0.7), AREA, {**AREA, **NORMALIZED}),
    ],
)
def test_a_graph_gets_the_record_that_its_verdicts_follow(
    bundle: Path, stored: Any, thresholds: tuple[float, ...], record: dict[str, Any], note: dict[str, Any]
) -> None:
    torch.save({} if stored is None else {OPERATING_POINT_KEY: stored}, bundle / "model.ckpt")
    assert keep_operating_point(bundle / "model.ckpt", model(*thresholds), bundle) == record
    network = openvino_core().read_model(bundle / "model.xml")
    assert read_note(network) == note
    assert region_rule(network) == (RegionRule(0.5, 9) if record is AREA else None)
