"""Metrics from one pass over the test images, and the files that are kept of each image."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPRO
from anomalib.post_processing import PostProcessor
from image_samples import SHAPE, TURNED
from PIL import Image
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_f1_score

from anomalib_defect_plugins.benchmark.evaluation import Evaluation, _row
from anomalib_defect_plugins.benchmark.recorder import ImagePrediction, Recorder, read_thresholds
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.metrics import DefectIoU
from anomalib_defect_plugins.metrics.ranking import rank

SIDE = 12


def make_images(folder: Path, number: int = 9, ties: bool = True) -> dict[str, Tensor]:
    """Draw maps and masks, two thirds of them with two square defects, and write image files."""
    rng = torch.Generator().manual_seed(0)
    masks = torch.zeros(number, SIDE, SIDE, dtype=torch.bool)
    for index in range(number // 3, number):
        masks[index, 1:4, 1 : 2 + index % 4] = True
        masks[index, 6:9, 6 : 8 + index % 3] = True
    maps = torch.rand(number, SIDE, SIDE, generator=rng) + 0.4 * masks
    maps = (maps * 8).round() / 8 if ties else maps
    for index in range(number):
        Image.new("RGB", (20, 30)).save(folder / f"{index}.png")
    return {"maps": maps, "masks": masks, "scores": maps.amax((1, 2)) + 0.3 * torch.rand(number, generator=rng)}


def record(
    folder: Path, tensors: Mapping[str, Any], batch_size: int = 4, threshold: float = 1.0, model: Any = None
) -> Recorder:
    """Record images batch by batch, as a trainer does before and after a post-processor."""
    recorder = Recorder(folder)
    trainer: Any = None
    labels = tensors.get("labels", tensors["masks"].any((1, 2)) if tensors["masks"] is not None else None)
    for start in range(0, len(tensors["scores"]), batch_size):
        part = slice(start, start + batch_size)
        maps, masks = (None if tensors[name] is None else tensors[name][part] for name in ("maps", "masks"))
        count = len(tensors["scores"][part])
        paths = [str(folder / f"{index}.png") for index in range(start, start + count)]
        batch: Any = ImageBatch(
            image=torch.zeros(count, 3, SIDE, SIDE), image_path=paths, gt_label=labels[part], gt_mask=masks
        )
        recorder.on_test_batch_start(trainer, model, batch, start)
        batch.update(anomaly_map=None if maps is None else maps[:, None], pred_score=tensors["scores"][part])
        recorder.on_test_batch_end(trainer, model, batch, batch, start)
        # The post-processor follows: it predicts labels and masks, and scales scores and maps.
        batch.pred_label = batch.pred_score > threshold
        batch.pred_mask = None if maps is None else batch.anomaly_map > threshold
        batch.pred_score = batch.pred_score * 0 + 0.5
        batch.anomaly_map = None if maps is None else batch.anomaly_map * 0
    recorder.on_test_epoch_end(trainer, model)
    return recorder


def evaluate(folder: Path, tensors: Mapping[str, Any], batch_size: int = 4) -> Evaluation:
    """Record images and compare them with the masks, of any size."""
    return Evaluation(record(folder, tensors, batch_size), masks_of(tensors))


def masks_of(tensors: Mapping[str, Any]) -> Callable[[str], Any]:
    masks = tensors.get("truths", tensors["masks"])
    return lambda path: None if masks is None else masks[int(Path(path).stem)].numpy()


@pytest.mark.parametrize("ties", [True, False])
def test_metrics_equal_those_of_torchmetrics_and_anomalib_on_all_pixels_at_once(tmp_path: Path, ties: bool) -> None:
    tensors = make_images(tmp_path, ties=ties)
    metrics = evaluate(tmp_path, tensors).metrics()
    maps, masks, scores = tensors["maps"].double() / 2, tensors["masks"], tensors["scores"].double() / 2
    labels = masks.any((1, 2))
    aupro, iou = AUPRO(fields=["maps", "masks"]), DefectIoU(fields=["predicted", "masks"])
    for metric in (aupro, iou):
        batch: Any = SimpleNamespace(maps=maps.float(), masks=masks.int(), predicted=tensors["maps"] > 1.0)
        metric.update(batch)
    expected = {
        "image_AUROC": binary_auroc(scores, labels.int()),
        "image_F1Score": binary_f1_score((tensors["scores"] > 1.0).int(), labels.int()),
        "pixel_AUROC": binary_auroc(maps.flatten(), masks.flatten().int()),
        "pixel_AP": binary_average_precision(maps.flatten(), masks.flatten().int()),
        "pixel_F1Score": binary_f1_score((tensors["maps"] > 1.0).int(), masks.int()),
        "pixel_AUPRO": aupro.compute(),
        "pixel_IoU": iou.compute(),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, abs=1e-6
    )


def test_areas_equal_hand_calculations() -> None:
    # Scores of positives 3, 1 and of negatives 2, 1: pairs won 3 > 2, 3 > 1, tied 1 = 1: (2 + 0.5) / 4.
    ranking = rank(np.array([3.0, 1.0]), [np.array([2.0]), np.array([1.0])])
    assert ranking is not None
    assert ranking.auroc == pytest.approx(2.5 / 4)
    # Recall 1/2 at precision 1, then recall 1 at precision 2/4.
    assert ranking.average_precision == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    # The curve: (0, 1/2) to (1/2, 1/2), then a line to (1, 1): up to 1/2 it is 1/2.
    assert ranking.weighted_area(0.5) == pytest.approx(0.5)
    assert ranking.weighted_area(1.0) == pytest.approx(0.5 * 0.5 + 0.5 * 0.75)


def test_there_is_no_curve_for_a_single_class() -> None:
    assert rank(np.array([]), [np.ones(3)]) is None
    assert rank(np.ones(3), []) is None


def test_metrics_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    tensors = make_images(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    metrics = []
    for size, folder in ((1, tmp_path / "a"), (9, tmp_path / "b")):
        metrics.append(evaluate(folder, tensors, size).metrics())
    assert metrics[0] == metrics[1]


def test_a_defective_image_without_a_mask_counts_only_for_image_metrics(tmp_path: Path) -> None:
    tensors = make_images(tmp_path)
    labels = tensors["masks"].any((1, 2))
    tensors["masks"][5] = False
    all_images = evaluate(tmp_path, {**tensors, "labels": labels}).metrics()
    for file in tmp_path.glob("*.bin"):
        file.unlink()
    rest = [index for index in range(9) if index != 5]
    other_images = evaluate(tmp_path, {name: value[rest] for name, value in tensors.items()}).metrics()
    assert {name: value for name, value in all_images.items() if name.startswith("pixel_")} == {
        name: value for name, value in other_images.items() if name.startswith("pixel_")
    }
    assert all_images["image_AUROC"] == pytest.approx(float(binary_auroc(tensors["scores"].double() / 2, labels.int())))


def test_without_masks_or_maps_there_are_only_image_metrics(tmp_path: Path) -> None:
    tensors = make_images(tmp_path)
    labels = tensors["masks"].any((1, 2))
    for missing in ({"masks": None}, {"maps": None}):
        assert set(evaluate(tmp_path, {**tensors, **missing, "labels": labels}).metrics()) == {
            "image_AUROC",
            "image_F1Score",
            "image_Precision",
            "image_Recall",
            "image_Accuracy",
        }


def test_normal_images_alone_have_no_metrics(tmp_path: Path) -> None:
    tensors = {name: value[:3] for name, value in make_images(tmp_path).items()}
    logged = {"image_AUROC": 0.0, "image_F1Score": 0.0, "pixel_AUROC": 0.0, "pixel_F1Score": 0.0}  # by torchmetrics
    assert evaluate(tmp_path, tensors).metrics({**logged, "loss": 0.1}) == {"loss": 0.1}


def test_there_is_no_ranking_of_defective_images_alone(tmp_path: Path) -> None:
    tensors = {name: value[3:] for name, value in make_images(tmp_path).items()}
    metrics = evaluate(tmp_path, tensors).metrics({"image_AUROC": 0.0, "image_F1Score": 0.0})
    assert "image_AUROC" not in metrics
    assert metrics["image_F1Score"] > 0
    assert metrics["pixel_AUROC"] > 0


def test_maps_are_scaled_over_the_test_set_and_masks_are_kept_where_there_is_a_defect(tmp_path: Path) -> None:
    tensors = make_images(tmp_path, ties=False)
    evaluation = evaluate(tmp_path, tensors)
    assert evaluation.map_range is not None
    low, high = evaluation.map_range
    assert (low, high) == (float(tensors["maps"].min()), float(tensors["maps"].max()))
    folder = tmp_path / "run"
    folder.mkdir()
    evaluation.write(folder, {str(tmp_path / "4.png"): "crack"}, maps=True)
    names = [f"{index:05}.png" for index in range(9)]
    assert sorted(path.name for path in (folder / "maps").iterdir()) == names
    assert sorted(path.name for path in (folder / "masks").iterdir()) == names[3:]
    scaled = np.array(Image.open(folder / "maps/00004.png"))
    assert scaled.dtype == np.uint8
    assert np.abs(scaled / 255 * (high - low) + low - tensors["maps"][4].numpy()).max() < (high - low) / 500
    assert (np.array(Image.open(folder / "masks/00004.png")) == 255 * tensors["masks"][4].numpy()).all()
    rows = list(csv.DictReader((folder / "images.csv").open()))
    assert rows[4]["defect_type"] == "crack"
    assert rows[4]["map"] == "00004.png"
    assert (rows[4]["width"], rows[4]["height"], rows[4]["label"]) == ("20", "30", "1")
    assert [float(row["score"]) for row in rows] == tensors["scores"].tolist()
    assert [row["pred_label"] == "1" for row in rows] == (tensors["scores"] > 1).tolist()


def test_maps_are_only_written_if_requested(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    evaluate(tmp_path, make_images(tmp_path)).write(tmp_path / "run", {}, maps=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["images.csv"]
    rows = list(csv.DictReader((tmp_path / "run/images.csv").open()))
    assert {row["map"] for row in rows} == {""}


@pytest.mark.parametrize("name", ["maps", "scores"])
def test_values_that_are_not_finite_are_an_error_that_names_the_image(tmp_path: Path, name: str) -> None:
    tensors = make_images(tmp_path)
    tensors[name][6] = torch.nan
    with pytest.raises(InvalidInputError, match=r"6\.png is not finite"):
        record(tmp_path, tensors)


def test_thresholds_are_in_units_of_scores_and_maps_or_none() -> None:
    class PostProcessor(nn.Module):
        image_threshold = torch.tensor(0.25)
        pixel_threshold = torch.tensor(torch.nan)

    assert read_thresholds(PostProcessor()) == {"image": 0.25, "pixel": None}
    assert read_thresholds(None) == {"image": None, "pixel": None}


@pytest.mark.parametrize("known", [(), ("image",), ("image", "pixel")])
def test_labels_and_masks_without_a_threshold_are_not_used(tmp_path: Path, known: tuple[str, ...]) -> None:
    # anomalib's post-processor labels raw scores above 0.5, if it was not validated.
    model = SimpleNamespace(post_processor=PostProcessor(enable_threshold_matching=False))
    for name in known:
        getattr(model.post_processor, f"_{name}_threshold").fill_(1)
    tensors = make_images(tmp_path)
    recorder = record(tmp_path, tensors, model=model)
    logged = {"image_F1Score": 0.1, "pixel_F1Score": 0.1, "pixel_IoU": 0.1, "image_AUROC": 0.1, "loss": 0.1}
    metrics = Evaluation(recorder, masks_of(tensors)).metrics(logged)
    assert ("image_F1Score" in metrics) == ("image" in known)
    assert {name for name in ("pixel_F1Score", "pixel_IoU") if name in metrics} == (
        {"pixel_F1Score", "pixel_IoU"} if "pixel" in known else set()
    )
    assert metrics["loss"] == 0.1
    assert metrics["image_AUROC"] != 0.1
    assert all((image.pred_label is None) == ("image" not in known) for image in recorder.predictions)
    # The values of the labels replace those that the model has logged.
    assert 0.1 not in [value for name, value in metrics.items() if name != "loss"]


def test_the_size_of_a_turned_image_is_that_of_the_picture(tmp_path: Path) -> None:
    image = ImagePrediction(str(TURNED["jpeg"](6).create(tmp_path)), False, 0.5, None, 0, (0, 0), False)
    row = _row(image, {}, "")
    assert (row.height, row.width) == SHAPE


# Images of another size than that of the model


def one_map(values: Tensor, truth: Tensor) -> dict[str, Any]:
    """A defective image with a map and a mask of other sizes."""
    return {
        "maps": values[None],
        "masks": torch.zeros(1, *values.shape, dtype=torch.bool),
        "truths": [truth],
        "labels": torch.ones(1, dtype=torch.bool),
        "scores": values.amax()[None],
    }


def test_a_map_of_half_the_size_is_compared_with_the_mask_at_the_size_of_the_image(tmp_path: Path) -> None:
    # Bilinear by hand: 0 and 4 become 0, 1, 3, 4. The mask marks the columns of 3 and 0.
    truth = torch.tensor([[True, False, True, False]]).expand(4, 4)
    metrics = evaluate(tmp_path, one_map(torch.tensor([[0.0, 4.0], [0.0, 4.0]]), truth)).metrics()
    # Columns 4 (normal), 3 (defect), 1 (normal), 0 (defect): of four pairs, the defect wins only 3 > 1.
    assert metrics["pixel_AUROC"] == pytest.approx(1 / 4)
    # Precision 1/2 at recall 1/2, and 1/2 at recall 1.
    assert metrics["pixel_AP"] == pytest.approx(1 / 2)
    # The predicted mask, the right half of the map, is the right half of the image: 1 of 3 marked columns is right.
    assert metrics["pixel_IoU"] == pytest.approx(1 / 3)
    assert metrics["pixel_F1Score"] == pytest.approx(1 / 2)


def test_a_defect_that_vanishes_at_the_size_of_the_model_still_counts(tmp_path: Path) -> None:
    truth = torch.zeros(8, 8, dtype=torch.bool)
    truth[4, 5] = True  # between the pixels that a reduction to the nearest takes
    values = torch.zeros(4, 4)
    values[2, 2] = 2.0
    metrics = evaluate(tmp_path, one_map(values, truth)).metrics()
    # Along an axis the enlarged peak has the weights 1/4, 3/4, 3/4, 1/4, so three other pixels of 63 are as high.
    assert metrics["pixel_AUROC"] == pytest.approx(1 - 3 / 2 / 63)
    # The predicted mask consists of these four pixels, where the product 9/16 is above a half.
    assert metrics["pixel_F1Score"] == pytest.approx(2 / (4 + 1))


def test_images_of_different_sizes_are_compared_at_their_own(tmp_path: Path) -> None:
    tensors = make_images(tmp_path, ties=False)
    sizes = [(SIDE * (1 + index % 3), SIDE * (1 + index % 2)) for index in range(9)]
    enlarged = [
        mask.repeat_interleave(height // SIDE, 0).repeat_interleave(width // SIDE, 1)
        for mask, (height, width) in zip(tensors["masks"], sizes, strict=True)
    ]
    evaluation = evaluate(tmp_path, {**tensors, "truths": enlarged, "labels": tensors["masks"].any((1, 2))})
    maps = [
        nn.functional.interpolate(values[None, None], size, mode="bilinear")[0, 0]
        for values, size in zip(tensors["maps"], sizes, strict=True)
    ]
    scores, labels = torch.cat([values.flatten() for values in maps]), torch.cat([mask.flatten() for mask in enlarged])
    metrics = evaluation.metrics()
    assert metrics["pixel_AUROC"] == pytest.approx(float(binary_auroc(scores.double() / 2, labels.int())), abs=1e-6)
    folder = tmp_path / "run"
    folder.mkdir()
    evaluation.write(folder, {}, maps=True)
    assert Image.open(folder / "maps/00008.png").size == (SIDE, SIDE), "maps are kept as the model computed them"
    kept = np.array(Image.open(folder / "masks/00008.png")) > 0
    assert np.array_equal(kept, enlarged[8].numpy())


def test_masks_of_many_images_are_read_from_where_they_were_written(tmp_path: Path) -> None:
    # 15 pixels are no whole number of bytes.
    truths = [torch.rand(3, 5) > 0.4 for _ in range(5)]
    evaluation = evaluate(tmp_path, {**make_images(tmp_path, 5), "truths": truths})
    assert [mask.tolist() for _, mask in evaluation._planes(evaluation.predictions)] == [t.tolist() for t in truths]
