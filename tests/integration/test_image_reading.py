"""Every way to an image reads the same values: data sets, anomalib's own, prediction, inspection, uploads."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pytest
import torch
from anomalib.data import Folder, PredictDataset
from anomalib.data.datasets.base.image import AnomalibDataset
from anomalib.data.utils import ValSplitMode
from anomalib.engine import Engine
from anomalib.models import Sidn
from bright_graph import bright_graph
from image_samples import GREY, SAMPLES, SEVERAL_PAGES, SHAPE, TURNED, Sample, steps
from lightning.pytorch import Callback
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_files import ANOMALIB_SUFFIXES
from anomalib_defect_plugins.data import CheckedDataset, DefectFolder, WithDefects
from anomalib_defect_plugins.data.sample_table import Sample as Row
from anomalib_defect_plugins.data.sample_table import make_table
from anomalib_defect_plugins.data.stock_datasets import checked
from anomalib_defect_plugins.demo.services.uploads import read_upload
from anomalib_defect_plugins.inference.inspect_folder import inspect_images
from anomalib_defect_plugins.inference.openvino import Inspector
from anomalib_defect_plugins.inference.predictor import InspectSettings

ALL_SAMPLES = {**SAMPLES, **{f"turned-{name}": make(6) for name, make in TURNED.items()}}

Pixels = npt.NDArray[Any]


class StockData(AnomalibDataset):
    """Any data set that loads images as anomalib does."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._samples = make_table([Row(str(path), "train")])


def through_checked_dataset(path: Path) -> Pixels:
    dataset = CheckedDataset()
    dataset.samples = make_table([Row(str(path), "train")])
    return dataset[0].image.numpy()


def through_stock_dataset(path: Path) -> Pixels:
    return checked(StockData(path))[0].image.numpy()


def through_predict_dataset(path: Path) -> Pixels:
    return checked(PredictDataset(path))[0].image.numpy()


def through_inspection(path: Path) -> Pixels:
    folder = path.parent / "maps"
    folder.mkdir()
    ((_, row),) = Inspector(bright_graph(), InspectSettings(maps=folder), SHAPE, threads=1).inspect([(0, str(path))])
    assert "error" not in row, row
    assert (row["height"], row["width"]) == SHAPE
    (written,) = folder.rglob("*.png")
    with Image.open(written) as image:
        return np.asarray(image) / 255


def through_upload(path: Path) -> Pixels:
    photo = read_upload(path)
    assert photo.size == SHAPE
    return photo.pixels.transpose(2, 0, 1) / 255


READERS: dict[str, tuple[Callable[[Path], Pixels], float]] = {
    "checked-dataset": (through_checked_dataset, 0),
    "stock-dataset": (through_stock_dataset, 0),
    "predict-dataset": (through_predict_dataset, 0),
    "inspection": (through_inspection, 0.51 / 255),  # its map is the mean of the channels, with 8 bits
    "upload": (through_upload, 0.51 / 255),
}
"""Functions that read an image, shape (3, H, W) or (H, W), in [0, 1], and the rounding that they add."""


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ALL_SAMPLES)
def test_every_reader_has_the_values_of_the_picture(tmp_path: Path, name: str, reader: str) -> None:
    sample = ALL_SAMPLES[name]
    read, rounding = READERS[reader]
    if reader == "predict-dataset" and sample.suffix not in ANOMALIB_SUFFIXES:
        pytest.skip("anomalib does not list such files")
    pixels = read(sample.create(tmp_path))
    expected = sample.expected() if pixels.ndim == 3 else sample.expected().mean(0)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=sample.tolerance + rounding + 1e-6)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", SEVERAL_PAGES)
def test_every_reader_refuses_several_pages(tmp_path: Path, name: str, reader: str) -> None:
    suffix, write = SEVERAL_PAGES[name]
    path = tmp_path / f"image{suffix}"
    write(path)
    if reader == "predict-dataset" and suffix not in ANOMALIB_SUFFIXES:
        pytest.skip("anomalib does not list such files")
    with pytest.raises((InvalidInputError, AssertionError), match="it has 3 pages or frames"):
        READERS[reader][0](path)


class Recorder(Callback):
    """Records the images of all batches before pre-processing, by stage."""

    def __init__(self) -> None:
        self.images: dict[str, list[Pixels]] = {}

    def _record(self, trainer: Any, module: Any, batch: Any, *_: Any) -> None:
        self.images.setdefault(trainer.state.stage.value, []).extend(image.numpy() for image in batch.image)

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = on_predict_batch_start = _record


def write_folders(root: Path, sample: Sample) -> None:
    for kind, count in (("good", 5), ("bad", 2)):
        for number in range(count):
            sample.create(root / kind, str(number))


def stock_folder(root: Path, **options: Any) -> Folder:
    arguments = {"train_batch_size": 2, "eval_batch_size": 2, "num_workers": 0, **options}
    return Folder(name="x", root=root, normal_dir="good", abnormal_dir="bad", **arguments)


def tiny_model(**options: Any) -> Sidn:
    return Sidn(image_size=SHAPE, backbone=None, channels=4, clusters=2, iterations=1, evaluator=False, **options)


def engine_in(folder: Path, *callbacks: Callback) -> Engine:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Engine(callbacks=list(callbacks), accelerator="cpu", devices=1, default_root_dir=folder, **quiet)


@pytest.mark.parametrize("name", ["tiff-10-bits-packed", "png-16-bits", "turned-jpeg"])
def test_a_model_has_the_same_pixels_in_anomalibs_folder_and_prediction(tmp_path: Path, name: str) -> None:
    sample = ALL_SAMPLES[name]
    write_folders(tmp_path / "data", sample)
    recorder, model = Recorder(), tiny_model()
    engine = engine_in(tmp_path / "runs", recorder)
    engine.fit(model, datamodule=stock_folder(tmp_path / "data"))
    again = engine_in(tmp_path / "again", recorder)
    again.test(
        tiny_model(), datamodule=stock_folder(tmp_path / "data"), ckpt_path=engine.best_model_path, verbose=False
    )
    again.predict(tiny_model(), data_path=tmp_path / "data" / "bad", ckpt_path=engine.best_model_path)
    assert set(recorder.images) >= {"train", "validate", "test", "predict"}
    for stage, images in recorder.images.items():
        for image in images:
            np.testing.assert_allclose(image, sample.expected(), atol=sample.tolerance + 1e-6, err_msg=stage)
    drawn = [path for path in (tmp_path / "again").rglob("*") if "images" in path.parts and path.is_file()]
    assert len(drawn) == 3  # the test images, of which the defective ones are predicted, too
    for path in drawn:
        with Image.open(path) as picture:
            red = np.asarray(picture.convert("RGB").crop((0, 0, 256, 256)).resize(SHAPE[::-1]))[..., 0]
        np.testing.assert_allclose(red[30:, 4:20] / 255, sample.expected()[0, 30:, 4:20], atol=0.2)  # below the title


def test_with_defects_and_loaders_of_stock_data_are_read_likewise(tmp_path: Path) -> None:
    sample = SAMPLES["png-16-bits"]
    write_folders(tmp_path / "data", sample)
    base = stock_folder(tmp_path / "data")
    recorder = Recorder()
    engine = engine_in(tmp_path / "runs", recorder)
    engine.fit(tiny_model(visualizer=False), datamodule=WithDefects(base, real=1, masks=False))
    stock = stock_folder(tmp_path / "data")
    stock.setup()
    loader = DataLoader(stock.test_data, batch_size=2, collate_fn=stock.test_data.collate_fn)
    engine.test(tiny_model(visualizer=False), dataloaders=loader, verbose=False)
    assert type(loader.dataset) is type(stock.test_data)
    assert {"train", "test"} <= set(recorder.images)
    for images in recorder.images.values():
        for image in images:
            np.testing.assert_allclose(image, sample.expected(), atol=1e-5)


def test_worker_processes_read_likewise(tmp_path: Path) -> None:
    path = SAMPLES["png-16-bits"].create(tmp_path)
    for dataset in (StockData(path), PredictDataset(path)):
        copied = pickle.loads(pickle.dumps(checked(dataset)))
        torch.testing.assert_close(copied[0].image, torch.from_numpy(GREY).float().expand(3, -1, -1), atol=1e-5, rtol=0)


class OwnReading(StockData):
    """A data set that loads images itself."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)


@pytest.mark.parametrize(("name", "warned"), [("png-16-bits", True), ("turned-jpeg", True), ("png-8-bits-rgb", False)])
def test_a_data_set_with_a_reader_of_its_own_is_named_where_it_matters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, warned: bool
) -> None:
    path = ALL_SAMPLES[name].create(tmp_path)
    dataset = OwnReading(path)
    assert checked(dataset) is dataset
    assert [str(path) in message for message in caplog.messages] == [True] * warned


def test_synthetic_defects_that_anomalib_draws_on_wrong_pixels_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folders(tmp_path, SAMPLES["png-16-bits"])
    datamodule = stock_folder(tmp_path, val_split_mode=ValSplitMode.SYNTHETIC)
    datamodule.setup()
    checked(datamodule.val_data)
    (message,) = caplog.messages
    assert message.startswith("anomalib has drawn defects on images of ")
    assert "more than 8 bits or an orientation tag" in message


def test_files_that_anomalib_does_not_list_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    SAMPLES["png-8-bits-rgb"].create(tmp_path)
    SAMPLES["jfif"].create(tmp_path, "b")
    (tmp_path / "a.heic").touch()
    checked(PredictDataset(tmp_path))
    (message,) = caplog.messages
    assert message.startswith(f"anomalib leaves out image files with the suffix of {tmp_path / 'a.heic'}, 2 in all")


def test_a_stock_model_has_stock_data(tmp_path: Path) -> None:
    write_folders(tmp_path, SAMPLES["png-8-bits-rgb"])
    datamodule = stock_folder(tmp_path)
    datamodule.setup()
    before = type(datamodule.train_data)
    ours = checked(datamodule.train_data)
    assert type(datamodule.train_data) is before
    assert ours.name == datamodule.train_data.name
    for index in range(len(ours)):
        assert torch.equal(ours[index].image, datamodule.train_data[index].image)
        assert ours[index].image_path == datamodule.train_data[index].image_path


def test_defect_folder_reads_all_formats_and_names_those_that_it_cannot_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("jfif", "gif", "jpeg-2000-8-bits", "tiff-12-bits-packed"):
        SAMPLES[name].create(tmp_path / "good", name)
    SAMPLES["gif"].create(tmp_path / "scratch")
    (tmp_path / "scratch" / "photo.HEIC").touch()
    (tmp_path / "good" / "photo.dng").touch()
    with caplog.at_level(logging.WARNING):
        data = DefectFolder(tmp_path, num_workers=0, test_ratio=0)
        data.setup()
    assert len(data.train_data) == 4
    (message,) = (message for message in caplog.messages if "left out" in message)
    assert message.startswith(f"2 files are left out, the first is {tmp_path / 'good' / 'photo.dng'}: ")


def unscaled() -> Sample:
    """Return values of 12 bits in samples of 16 without a tag."""
    return Sample(".png", lambda path: Image.fromarray(steps(GREY, 4095, "u2")).save(path), GREY / 16, 1e-4)


def test_training_warns_once_of_values_that_are_not_scaled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folders(tmp_path / "data", unscaled())
    engine_in(tmp_path / "runs").fit(tiny_model(), datamodule=stock_folder(tmp_path / "data"))
    (message,) = (message for message in caplog.messages if "almost black" in message)
    assert message.startswith(f"image {tmp_path / 'data' / 'bad' / '0.png'} is almost black")
    assert "as are 7 of 7 images" in message


def test_inspection_warns_once_of_values_that_are_not_scaled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openvino.save_model(bright_graph(), tmp_path / "model.xml")
    SAMPLES["png-16-bits"].create(tmp_path / "images", "a")
    for name in ("b", "c"):
        unscaled().create(tmp_path / "images", name)
    counts = inspect_images(
        tmp_path / "model.xml", tmp_path / "images", tmp_path / "out.parquet", InspectSettings(threshold=0.5)
    )
    assert (counts["images"], counts["error"]) == (3, 0)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert f"image {tmp_path / 'images' / 'b.png'} is almost black or almost white, as are 2 of 3 images" in warnings[0]
