"""The results store: what it reads, and what a client cannot make it read."""

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pandas as pd
import pytest
import torch
from bright_graph import bright_graph
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from results_folder import Layout, make_content, make_run, write_results, write_run

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError, UserError
from anomalib_defect_plugins.demo.services.results_store import PICTURE_KINDS, ResultsStore
from anomalib_defect_plugins.inference.run_model import _thresholds, model_class
from anomalib_defect_plugins.results.image_table import read_image_table
from anomalib_defect_plugins.results.reader import read_results

LAYOUT = Layout(models=("HtpGan", "PaDiM"), data=("brick",), seeds=(0, 1), images=6, failed=[("PaDiM", 1)])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one results folder, ``made``, which the tests do not change."""
    root = tmp_path_factory.mktemp("results")
    write_results(root / "made", LAYOUT)
    return root


@pytest.fixture
def changing(tmp_path: Path, results: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(results, tmp_path / "results"))


def first_run(store: ResultsStore) -> tuple[str, Path]:
    run = store.runs()[0]
    return run.key, run.record.folder


def write_images(folder: Path, **columns: object) -> None:
    """Write a table of one image that does not exist, with some columns replaced."""
    row = {"image_path": "none.png", "label": 1, "defect_type": "", "score": 0.7, "pred_label": "", "width": 8}
    pd.DataFrame([row | {"height": 6, "map": "00000.png"} | columns]).to_csv(folder / "images.csv", index=False)


def test_finished_runs_of_every_results_folder_are_listed(results: Path) -> None:
    runs = ResultsStore(results).runs()
    assert [(run.benchmark, run.model, run.data, run.supervision, run.seed) for run in runs] == [
        ("made", "HtpGan", "brick", "normal", 0),
        ("made", "HtpGan", "brick", "normal", 1),
        ("made", "PaDiM", "brick", "normal", 0),
    ]
    assert [run.key for run in ResultsStore(results / "made").runs()] == [run.key for run in runs]


@pytest.mark.parametrize("what", ["nothing", "empty", "file"])
def test_a_folder_without_results_has_no_runs(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "results"
    if what == "empty":
        (folder / "begun/runs/.abc-1.partial").mkdir(parents=True)
    elif what == "file":
        folder.write_text("no folder")
    assert ResultsStore(folder).runs() == []
    assert ResultsStore(folder).summaries() == {}


def test_a_run_that_ends_later_is_listed_without_a_restart(changing: Path) -> None:
    store = ResultsStore(changing)
    before = len(store.runs())
    shutil.rmtree(changing / "made/runs" / first_run(store)[0].split("/")[1])
    (changing / "made/results.csv").unlink()
    write_run(changing / "made/runs/1234567890abcdef", make_content(make_run(seed=7), {"image_AUROC": 1.0}))
    assert len(store.runs()) == before
    assert [run.seed for run in store.runs()].count(7) == 1


def test_missed_defects_and_false_alarms_are_marked(changing: Path) -> None:
    store = ResultsStore(changing)
    key, folder = first_run(store)  # its threshold is 0.5
    cases = {(1, 0.7, ""): "right", (1, 0.5, ""): "right", (1, 0.4, ""): "missed", (0, 0.7, ""): "false_alarm",
             (0, 0.3, ""): "right", (1, 0.7, 0): "missed", (0, 0.3, 1): "false_alarm"}  # fmt: skip
    for (label, score, pred_label), expected in cases.items():
        (folder / "images.csv").unlink()
        write_images(folder, label=label, score=score, pred_label=pred_label)
        row = store.images(key).iloc[0]
        assert {name for name in ("missed", "false_alarm") if row[name]} == {expected} - {"right"}


def test_an_image_without_label_and_threshold_is_neither_missed_nor_a_false_alarm(changing: Path) -> None:
    store = ResultsStore(changing)
    _, folder = first_run(store)
    for label, pred_label, expected in ((1, "", False), (0, "", False), (1, 0, True)):
        (folder / "images.csv").unlink()
        write_images(folder, label=label, score=700.0, pred_label=pred_label)
        row = read_image_table(folder).iloc[0]
        assert (row.is_labelled, row.missed, row.false_alarm) == (expected, expected, False)


def test_pictures_have_the_requested_size_and_the_units_of_the_scores(results: Path) -> None:
    store = ResultsStore(results)
    key, folder = first_run(store)
    shapes = {kind: store.picture(key, 1, kind, 32).shape for kind in PICTURE_KINDS}
    assert shapes == {
        "image": (24, 32, 3),
        "mask": (24, 32),
        "map": (24, 32),
        "pred_mask": (24, 32),
        "overlay": (24, 32, 3),
    }
    heat = store.picture(key, 1, "map")
    stored = np.asarray(Image.open(folder / "maps/00001.png"), np.float32)
    assert np.allclose(heat, stored / 255)  # its range is 0 to 1
    assert np.array_equal(store.picture(key, 1, "pred_mask"), stored > 127)  # and its threshold 0.5
    assert np.array_equal(store.picture(key, 1, "mask"), np.asarray(Image.open(folder / "masks/00001.png")) > 0)
    assert not store.picture(key, 0, "mask").any()


@pytest.mark.parametrize("index", [-1, 6, 10**9, 1.0, True, "0", "../../secret", None, [0], {"path": "/"}])
def test_an_unknown_index_reads_nothing(results: Path, index: Any) -> None:
    store = ResultsStore(results)
    with pytest.raises(InvalidInputError, match="choose a number from 0 to 5"):
        store.picture(first_run(store)[0], index, "image")


@pytest.mark.parametrize("key", ["", "..", "made/..", "../made", "/", "made/../../secret", "made\0", None, 0, ["made"]])
def test_an_unknown_key_reads_nothing(results: Path, key: Any) -> None:
    store = ResultsStore(results)
    for read in (store.run, store.images, store.model, lambda key: store.picture(key, 0, "image")):
        with pytest.raises(InvalidInputError, match="there is no run"):
            read(key)


@pytest.mark.parametrize("kind", ["", "model.ckpt", "../images.csv", "Image", None])
def test_an_unknown_kind_of_picture_reads_nothing(results: Path, kind: Any) -> None:
    store = ResultsStore(results)
    with pytest.raises(InvalidInputError, match="it must be one of image, mask, map, pred_mask, overlay"):
        store.picture(first_run(store)[0], 0, kind)


@pytest.mark.parametrize("name", ["../../../../secret.png", "{secret}", "link.png", "..", "maps"])
def test_a_table_cannot_name_maps_outside_its_run(changing: Path, name: str) -> None:
    secret = changing.parent / "secret.png"
    Image.new("L", (8, 6), 200).save(secret)
    store = ResultsStore(changing)
    key, folder = first_run(store)
    (folder / "maps/link.png").symlink_to(secret)
    write_images(folder, map=name.format(secret=secret))
    with pytest.raises(MissingDataError, match="kept no map"):
        store.picture(key, 0, "map")


def test_a_file_that_is_not_an_image_is_not_shown(changing: Path) -> None:
    store = ResultsStore(changing)
    key, folder = first_run(store)
    secret = changing.parent / "secret.txt"
    secret.write_text("password")
    for path in (secret, changing.parent, Path("/dev/zero"), changing.parent / "none.png"):
        write_images(folder, image_path=str(path))
        with pytest.raises(MissingDataError, match="cannot be read") as error:
            store.picture(key, 0, "image")
        assert "password" not in str(error.value)


def test_an_image_with_too_many_pixels_is_not_decoded(changing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    store = ResultsStore(changing)
    with pytest.raises(MissingDataError, match="cannot be read"):
        store.picture(first_run(store)[0], 0, "image")


@pytest.mark.parametrize("content", ["", "no table", "image_path,label\nx.png,1\n", "a,b\n1\n1,2,3\n"])
def test_a_broken_table_of_images_is_reported(changing: Path, content: str) -> None:
    store = ResultsStore(changing)
    key, folder = first_run(store)
    (folder / "images.csv").write_text(content)
    with pytest.raises(InvalidInputError, match="cannot be read; repeat the run"):
        store.images(key)


def test_a_run_without_maps_is_reported(tmp_path: Path) -> None:
    write_results(tmp_path / "made", Layout(models=("PaDiM",), data=("brick",), seeds=(0,), images=2, maps=False))
    store = ResultsStore(tmp_path)
    for kind in ("map", "pred_mask", "overlay"):
        with pytest.raises(MissingDataError, match="keep: "):
            store.picture(store.runs()[0].key, 0, kind)


def test_a_run_without_a_model_is_reported(results: Path) -> None:
    store = ResultsStore(results)
    assert not store.runs()[0].has_model
    with pytest.raises(MissingDataError, match="kept no model"):
        store.model(first_run(store)[0])


def test_an_exported_graph_predicts_images(changing: Path) -> None:
    store = ResultsStore(changing)
    key, folder = first_run(store)
    openvino.save_model(bright_graph(), folder / "openvino/FP32/model.xml")
    assert ResultsStore(changing).run(key).has_model
    model = store.model(key)
    assert model.engine == "OpenVINO FP32"
    image = np.full((12, 16, 3), 51, np.uint8)
    image[3, 4] = 204
    found = model(image)
    assert found.score == pytest.approx(0.8)
    assert found.anomaly_map is not None
    assert found.anomaly_map.shape == (12, 16)
    assert found.anomaly_map[3, 4] == pytest.approx(0.8)
    assert found.seconds > 0
    assert store.model(key) is model


def test_a_graph_of_fixed_size_predicts_images_of_other_sizes(changing: Path) -> None:
    store = ResultsStore(changing)
    key, folder = first_run(store)
    openvino.save_model(bright_graph(size=(8, 8)), folder / "openvino/FP16/model.xml")
    assert store.model(key)(np.full((12, 16, 3), 51, np.uint8)).score == pytest.approx(0.2, abs=1e-3)


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize(
    "wrap", [lambda value: value, lambda value: {"state_dict": {}, "hyper_parameters": {"a": value}}]
)
@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_checkpoint_is_never_unpickled(
    changing: Path, save: Callable[[object, Path], object], wrap: Callable[[object], object]
) -> None:
    store = ResultsStore(changing)
    key, folder = first_run(store)
    trace = changing / "unpickled"
    save(wrap(Attack(trace)), folder / "model.ckpt")
    with pytest.raises(InvalidInputError, match="cannot be loaded; repeat the run"):
        store.model(key)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "anomalib_defect_plugins.cli.command", "tiny_benchmark.Tiny", "AnomalibModule2"]
)
def test_a_run_cannot_name_a_class_that_is_not_a_registered_model(name: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a registered model"):
        model_class(name)


def test_models_of_this_package_and_of_anomalib_are_found_by_name_and_path() -> None:
    found = {model_class(name).__name__ for name in ("HtpGan", "htpgan", "anomalib_defect_plugins.HtpGan")}
    assert found == {"HtpGan"}
    assert model_class("anomalib.models.Padim").__name__ == "Padim"


def test_a_checkpoint_predicts_as_the_saved_model(changing: Path) -> None:
    from anomalib_defect_plugins import OneStage

    store = ResultsStore(changing)
    key, folder = first_run(store)
    content = json.loads((folder / "run.json").read_text())
    content["run"]["model"]["class_path"] = "OneStage"
    content["thresholds"] = {"image": 0.25, "pixel": 0.125}
    write_run(folder, content)
    model = OneStage(image_size=(32, 32), backbone="test_efficientnet").eval()
    save_checkpoint(model, folder / "model.ckpt")
    loaded = ResultsStore(changing).model(key)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    found = loaded(image)
    assert loaded.engine == "PyTorch"
    # It was never validated, so its post-processor has nothing to scale by, and its thresholds are those of the run.
    assert loaded.thresholds == (0.25, 0.125)
    assert found.score == pytest.approx(expected.pred_score.item(), abs=1e-6)
    assert found.anomaly_map is not None
    assert np.allclose(found.anomaly_map, expected.anomaly_map[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_a_run_without_thresholds_has_none_in_the_demo(changing: Path, has_checkpoint: bool) -> None:
    from anomalib_defect_plugins import OneStage

    store = ResultsStore(changing)
    _, folder = first_run(store)
    content = json.loads((folder / "run.json").read_text())
    content["thresholds"] = {"image": None, "pixel": None}
    write_run(folder, content)
    if has_checkpoint:
        save_checkpoint(OneStage(image_size=(32, 32), backbone="test_efficientnet"), folder / "model.ckpt")
    record = next(record for record in read_results(folder.parents[1]).done if record.folder == folder)
    assert all(math.isnan(threshold) for threshold in _thresholds(record))


def save_checkpoint(model: LightningModule, path: Path) -> None:
    """Save the checkpoint of a model."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path, weights_only=True)


def test_every_error_is_one_line_for_the_user(results: Path) -> None:
    store = ResultsStore(results)
    with pytest.raises(UserError) as error:
        store.picture("x\ny" * 200, 0, "image")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200
