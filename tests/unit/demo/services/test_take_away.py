"""Reports, models to take away, and models of one photo to keep."""

import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed")

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.demo.services.one_photo_training import Training, TrainingSettings
from anomalib_defect_plugins.demo.services.predictions import (
    DisplayedPhoto,
    PhotoPrediction,
    PredictionSet,
    ThresholdRange,
    jpeg_uri,
)
from anomalib_defect_plugins.demo.services.results_store import ResultsStore
from anomalib_defect_plugins.demo.services.take_away import (
    WORST,
    draw_overlay,
    keep_model,
    pack_model,
    pack_report,
    render_report,
)
from anomalib_defect_plugins.demo.services.uploads import Photo
from anomalib_defect_plugins.inference.bundle import read_metadata
from anomalib_defect_plugins.inference.openvino import Inspector
from anomalib_defect_plugins.inference.run_model import Thresholds

SIZE = (40, 60)


def predictions(count: int) -> PredictionSet:
    """Photos of which the first half is defective, with a square at the left."""
    made = []
    for number in range(count):
        anomaly_map = np.full(SIZE, 0.1, np.float32)
        anomaly_map[5:15, 5:15] = 0.9 if number < count / 2 else 0.2
        uri = jpeg_uri(Image.new("RGB", SIZE[::-1], (20, 160, 60)))
        photo = DisplayedPhoto(f"<b>{number}.png", SIZE, SIZE, uri)
        made.append(PhotoPrediction(photo, float(anomaly_map.max()), anomaly_map, 0.01, Thresholds(0.5, 0.5)))
    return PredictionSet("m", "e", made, 0.5, ThresholdRange(0, 1))


def test_the_report_shows_the_worst_images_and_lists_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    shown = predictions(WORST + 10)
    report = render_report(shown, 0.5)
    assert report.count("data:image/jpeg") == WORST
    assert "15 of 30 images are defective" in report
    assert "<b>0.png" not in report  # names are escaped
    with zipfile.ZipFile(pack_report(shown, 0.5)) as archive:
        masks = [name for name in archive.namelist() if name.startswith("masks/")]
        assert len(masks) == 30
        with Image.open(archive.open(masks[0])) as mask:
            assert np.count_nonzero(mask) == 100
        assert archive.read("defects.csv").count(b"\n") == 31


def test_the_overlay_keeps_the_colours_of_the_photo_and_outlines_the_defect() -> None:
    shown = predictions(2)
    pixels = np.asarray(draw_overlay(shown, shown.predictions[0], 0.5)).astype(int)
    np.testing.assert_allclose(pixels[30, 40], (20, 160, 60), atol=6)
    assert tuple(pixels[5, 10]) == (0, 200, 255)


@pytest.mark.slow
@pytest.mark.long
def test_a_kept_model_is_a_run_of_the_results_and_is_taken_away_as_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    pixels = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    training = Training(Photo("b_mask.png", pixels, (70, 80)), TrainingSettings(64, 2, 2))
    with pytest.raises(InvalidInputError, match="train again"):
        keep_model(tmp_path / "results", "brick", training)
    training.run()
    keep_model(tmp_path / "results", "brick", training)
    (run,) = ResultsStore(tmp_path / "results").runs()
    assert (run.model, run.data, run.has_model, run.threshold) == ("brick", "b_mask.png", True, 0.5)
    with zipfile.ZipFile(pack_model(run.record)) as archive:
        archive.extractall(tmp_path / "bundle")
    metadata = read_metadata(tmp_path / "bundle")
    assert (metadata["check"]["images"], metadata["check"]["changed_verdicts"]) == (1, 0)
    assert training.model is not None
    score = training.model(pixels).score
    assert Inspector.load(tmp_path / "bundle")(pixels).score == pytest.approx(score, abs=1e-3)
    failed = subprocess.CompletedProcess((), 1, stderr="warning: x\nerror: the folder brick is missing\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InvalidInputError, match="cannot be exported: the folder brick is missing"):
        pack_model(run.record)
    (run.record.folder / "model.ckpt").unlink()
    with pytest.raises(MissingDataError, match="kept no checkpoint"):
        pack_model(run.record)


@pytest.mark.parametrize(("name", "message"), [("../x", "cannot be the name"), ("taken", "already")])
def test_invalid_and_taken_names_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "taken").mkdir()
    training: Any = SimpleNamespace(checkpoint=tmp_path / "model.ckpt", photo=tmp_path / "photo.png")
    with pytest.raises(InvalidInputError, match=message):
        keep_model(tmp_path, name, training)
