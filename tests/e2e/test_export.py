"""A trained HtpGan leaves PyTorch: OpenVINO in three precisions, run by anomalib's own inferencer."""

from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType, ExportType, OpenVINOInferencer
from anomalib.engine import Engine

from anomalib_defect_plugins import HtpGan, TextureDefects

pytestmark = pytest.mark.slow

SINGLE_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Engine, HtpGan, TextureDefects]:
    root = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    model = HtpGan(num_scales=3, iterations_per_scale=10)
    data = TextureDefects(root=root / "data", eval_batch_size=8)
    engine = Engine(default_root_dir=root, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
    engine.fit(model, datamodule=data)
    return engine, model.eval(), data


def exported(trained: tuple[Engine, HtpGan, TextureDefects], root: Path, compression: CompressionType | None) -> Path:
    engine, model, data = trained
    return engine.export(
        model,
        ExportType.OPENVINO,
        export_root=root,
        compression_type=compression,
        datamodule=data,
        input_size=(256, 256),
    )


def test_the_inferencer_gives_what_the_trainer_gives(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the inferencer keeps compiled models in a folder of the working directory
    engine, model, data = trained
    inferencer = OpenVINOInferencer(exported(trained, tmp_path, None), device="CPU", config=SINGLE_PRECISION)
    (batch, *_) = engine.predict(model, datamodule=data)
    for path, score, anomaly_map in zip(batch.image_path, batch.pred_score, batch.anomaly_map, strict=True):
        prediction = inferencer.predict(path)
        assert prediction.pred_score.item() == pytest.approx(score.item(), abs=1e-3)
        np.testing.assert_allclose(prediction.anomaly_map.squeeze(), anomaly_map.squeeze().numpy(), atol=1e-3)


@pytest.mark.parametrize(("compression", "bound"), [(CompressionType.FP16, 0.02), (CompressionType.INT8_PTQ, 0.1)])
def test_compressed_models_are_smaller_and_stay_close(trained, tmp_path, compression, bound):
    _, model, data = trained
    plain = exported(trained, tmp_path / "plain", None)
    small = exported(trained, tmp_path / "small", compression)
    images = torch.stack([data.test_data[i].image for i in range(0, 60, 10)])
    with torch.no_grad():
        expected = model(images).anomaly_map.numpy()
    network = openvino.Core().compile_model(small, "CPU", SINGLE_PRECISION)
    maps = np.concatenate([network(image[None].numpy())["anomaly_map"] for image in images])
    assert np.abs(maps - expected).mean() < bound
    if compression is CompressionType.FP16:
        assert small.with_suffix(".bin").stat().st_size < 0.6 * plain.with_suffix(".bin").stat().st_size


def test_twenty_real_images_score_alike_in_openvino(data_root, trained, tmp_path):
    engine, model, _ = trained
    path = engine.export(model, ExportType.OPENVINO, export_root=tmp_path)
    network = openvino.Core().compile_model(path, "CPU", SINGLE_PRECISION)
    for number in range(1, 21):
        image = read_image(data_root / "crack_forest" / "image" / f"{number:03}.jpg", as_tensor=True)[None]
        batch = ImageBatch(image=model.pre_processor.transform(image))
        with torch.no_grad():
            expected = model.post_processor(model.model(batch.image))
        result = network(image.numpy())
        assert result["pred_score"].item() == pytest.approx(expected.pred_score.item(), abs=1e-3)
        np.testing.assert_allclose(result["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
