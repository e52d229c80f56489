"""Export of a trained HtpGan to OpenVINO in three precisions, run by anomalib's own inferencer."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.data.utils import read_image
from anomalib.deploy import CompressionType, ExportType, OpenVINOInferencer
from anomalib.engine import Engine
from torch import Tensor

from anomalib_defect_plugins import HtpGan, TextureDefects
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.inference.openvino import FULL_PRECISION

pytestmark = pytest.mark.slow

SIDE = 64
"""Height and width of the images, in pixels."""

Trained = tuple[Engine, HtpGan, TextureDefects]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    model = HtpGan(image_size=(SIDE, SIDE), num_scales=3, min_size=32, width=8, iterations_per_scale=5)
    data = TextureDefects(root=root / "data", image_size=SIDE, eval_batch_size=8)
    engine = Engine(default_root_dir=root, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
    engine.fit(model, datamodule=data)
    return engine, model.eval(), data


@pytest.fixture(scope="module")
def onnx(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX graph, which is the same in all precisions; tracing it takes seconds."""
    return trained[1].to_onnx(tmp_path_factory.mktemp("onnx"), input_size=(SIDE, SIDE))


def exported(trained: Trained, onnx: Path, root: Path, compression: CompressionType | None) -> Path:
    engine, model, data = trained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "to_onnx", lambda *_, **__: onnx)
        path = engine.export(
            model,
            ExportType.OPENVINO,
            export_root=root,
            compression_type=compression,
            datamodule=data,
            input_size=(SIDE, SIDE),
        )
    return cast(Path, path)


@pytest.fixture(scope="module")
def plain(trained: Trained, onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graph without compression, which the tests share."""
    return exported(trained, onnx, tmp_path_factory.mktemp("plain"), None)


def test_the_inferencer_predicts_what_the_trainer_predicts(
    trained: Trained, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the inferencer caches compiled models in the working directory
    engine, model, data = trained
    inferencer = OpenVINOInferencer(plain, device="CPU", config=FULL_PRECISION)
    batch, *_ = cast(list[Any], engine.predict(model, datamodule=data))
    for path, score, anomaly_map in zip(batch.image_path, batch.pred_score, batch.anomaly_map, strict=True):
        prediction: Any = inferencer.predict(path)
        assert prediction.pred_score.item() == pytest.approx(score.item(), abs=1e-3)
        np.testing.assert_allclose(prediction.anomaly_map.squeeze(), anomaly_map.squeeze().numpy(), atol=1e-3)


@pytest.mark.parametrize(("compression", "bound"), [(CompressionType.FP16, 0.02), (CompressionType.INT8_PTQ, 0.1)])
def test_compressed_models_are_smaller_and_stay_close(
    trained: Trained, onnx: Path, plain: Path, tmp_path: Path, compression: CompressionType, bound: float
) -> None:
    _, model, data = trained
    small = exported(trained, onnx, tmp_path, compression)
    images = torch.stack([cast(Tensor, data.test_data[index].image) for index in range(0, 60, 10)])
    with torch.no_grad():
        expected = model(images).anomaly_map.numpy()
    network = openvino_core().compile_model(small, "CPU", FULL_PRECISION)
    maps = np.concatenate([network(image[None].numpy())["anomaly_map"] for image in images])
    assert np.abs(maps - expected).mean() < bound
    if compression is CompressionType.FP16:
        assert small.with_suffix(".bin").stat().st_size < 0.6 * plain.with_suffix(".bin").stat().st_size


def test_twenty_real_images_score_alike_in_openvino(data_root: Path, trained: Trained, tmp_path: Path) -> None:
    engine, model, _ = trained
    pre_processor, post_processor = cast(Any, model.pre_processor), cast(Any, model.post_processor)
    path = engine.export(model, ExportType.OPENVINO, export_root=tmp_path)
    network = openvino_core().compile_model(path, "CPU", FULL_PRECISION)
    for number in range(1, 21):
        file = data_root / "crack_forest" / "image" / f"{number:03}.jpg"
        image = torch.as_tensor(read_image(file, as_tensor=True))[None]
        batch = ImageBatch(image=pre_processor.transform(image))
        with torch.no_grad():
            expected = post_processor(model.model(batch.image))
        result = network(image.numpy())
        assert result["pred_score"].item() == pytest.approx(expected.pred_score.item(), abs=1e-3)
        np.testing.assert_allclose(result["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
