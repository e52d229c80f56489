"""Comparison of graphs with PyTorch, by hand calculation, and the images that graphs are calibrated with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.deployment.agreement import Agreement, Bounds, Predictions, compare, predict
from anomalib_defect_plugins.deployment.exporter import ExportSettings, check_settings
from anomalib_defect_plugins.deployment.quantization import calibration_images

LABELS = np.array([False, False, True, True])
TORCH = Predictions(
    np.array([0.1, 0.2, 0.8, 0.9], np.float32), np.array([False, False, True, True]), [np.zeros((2, 2), np.float32)]
)


def graph(*scores: float, map_value: float = 0.0) -> Predictions:
    values = np.array(scores, np.float32)
    return Predictions(values, values >= 0.5, [np.full((2, 2), map_value, np.float32)])


def test_deviations_are_the_largest_differences_the_changed_verdicts_and_the_lost_auroc() -> None:
    agreement = compare("INT8", graph(0.1, 0.85, 0.8, 0.9, map_value=0.25), TORCH, LABELS)
    assert agreement.score_difference == pytest.approx(0.65)
    assert agreement.map_difference == 0.25
    assert agreement.changed_verdicts == 1
    assert agreement.auroc == 0.75  # three of the four pairs of a defective and a normal image are in order
    assert agreement.auroc_drop == 0.25
    assert agreement.describe() == "AUROC 0.750 after 1.000, 1 of 4 verdicts changed, scores differ by up to 0.65"
    assert agreement.excess(Bounds(auroc_drop=0.05, changed_verdicts=0.125)) == pytest.approx(5)


@pytest.mark.parametrize(
    ("auroc_drop", "changed", "keeps"), [(0.25, 0.25, True), (0.2, 0.25, False), (0.25, 0.2, False), (1, 1, True)]
)
def test_a_bound_is_kept_up_to_its_value(auroc_drop: float, changed: float, keeps: bool) -> None:
    agreement = compare("INT8", graph(0.1, 0.85, 0.8, 0.9), TORCH, LABELS)
    assert agreement.keeps(Bounds(auroc_drop, changed)) == keeps


@pytest.mark.parametrize(("precision", "keeps"), [("FP32", False), ("FP16", True), ("INT8", True)])
def test_only_single_precision_has_to_equal_pytorch(precision: str, keeps: bool) -> None:
    agreement = compare(precision, graph(0.1, 0.2, 0.8, 0.95), TORCH, LABELS)
    assert agreement.keeps(Bounds()) == keeps


def test_an_image_at_the_threshold_may_get_either_verdict() -> None:
    torch = Predictions(np.array([0.1, 0.5], np.float32), np.array([False, True]), [])
    found = Predictions(np.array([0.1, 0.4999], np.float32), np.array([False, False]), [])
    assert compare("FP32", found, torch, LABELS[1:3]).changed_verdicts == 0
    found = Predictions(np.array([0.1, 0.49], np.float32), np.array([False, False]), [])
    assert compare("FP32", found, torch, LABELS[1:3]).changed_verdicts == 1


def test_a_bound_of_zero_allows_nothing() -> None:
    assert compare("INT8", graph(0.1, 0.2, 0.8, 0.9), TORCH, LABELS).keeps(Bounds(0, 0))
    assert not compare("INT8", graph(0.1, 0.6, 0.8, 0.9), TORCH, LABELS).keeps(Bounds(0, 0))


def test_scores_that_are_not_finite_are_never_accepted() -> None:
    agreement = compare("INT8", graph(0.1, float("nan"), 0.8, 0.9), TORCH, LABELS)
    assert agreement.auroc is None
    assert not agreement.keeps(Bounds(1, 1))


def test_without_labels_and_thresholds_there_is_no_auroc_and_no_verdict() -> None:
    raw = Predictions(TORCH.scores, None, [])
    agreement = compare("FP32", raw, raw, np.zeros(4, bool))
    assert (agreement.auroc, agreement.changed_verdicts, agreement.map_difference) == (None, None, None)
    assert agreement.keeps(Bounds())


def test_predictions_keep_as_many_maps_as_are_compared() -> None:
    def model(image: Any) -> dict[str, Any]:
        return {"pred_score": image.max(keepdims=True), "anomaly_map": image[None, :, :, 0]}

    predictions = predict(model, [np.full((2, 3, 3), value, np.uint8) for value in range(5)], maps=2)
    assert predictions.scores.tolist() == [0, 1, 2, 3, 4]
    assert predictions.verdicts is None
    assert [each.shape for each in predictions.maps] == [(2, 3), (2, 3)]


def test_too_few_calibration_images_are_repeated_mirrored_and_every_second_one_has_a_defect() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 40, 3), np.uint8) for _ in range(3)]
    drawn = list(calibration_images(images, 10))
    assert len(drawn) == 10
    whole = [images[0], images[2], images[1][:, ::-1], images[0][::-1], images[2][::-1]]
    for number, expected in enumerate(whole):
        np.testing.assert_array_equal(drawn[2 * number], expected)
    assert (drawn[1] != images[1]).any()
    assert (drawn[1] != images[1]).any(axis=2).mean() < 0.5
    assert len(list(calibration_images(images, 2))) == 2


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (ExportSettings("INT4"), "--precision is INT4; use one of FP32, FP16, INT8, auto"),
        (ExportSettings(images=0), "--images is 0; it must be 1 or more"),
        (ExportSettings(calibration_images=0), "--calibration-images is 0"),
        (ExportSettings(bounds=Bounds(auroc_drop=-1)), r"--max-auroc-drop is -1; it must be in \[0, 1\]"),
        (ExportSettings(bounds=Bounds(changed_verdicts=float("nan"))), "--max-changed-verdicts is nan"),
    ],
)
def test_invalid_settings_are_refused_before_anything_is_loaded(
    settings: ExportSettings, line: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=line):
        check_settings(settings, tmp_path / "out")


def test_a_folder_with_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.xml").touch()
    with pytest.raises(InvalidInputError, match=r"exists; choose another folder \(--out\), or delete it"):
        check_settings(ExportSettings(), tmp_path)


def test_agreement_without_a_drop_of_auroc_is_zero() -> None:
    assert Agreement("FP32", 1, 0.0, None, None, None, None).auroc_drop == 0
