"""A bundle predicts in OpenVINO, ONNX Runtime, C++ and the service what PyTorch predicts; 8 bits are refused if not."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
import pytest
import torch
from anomalib.data import AnomalibDataModule
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from bright_graph import byte_graph
from PIL import Image
from tiny_models import make_datamodule, make_model

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.deployment import exporter
from anomalib_defect_plugins.deployment.agreement import predict_torch
from anomalib_defect_plugins.deployment.exporter import ExportSettings, export_bundle
from anomalib_defect_plugins.deployment.images import check_images
from anomalib_defect_plugins.inference.bundle import hash_graph, read_metadata
from anomalib_defect_plugins.inference.graph_checks import read_note
from anomalib_defect_plugins.inference.openvino import Inspector
from anomalib_defect_plugins.inference.scoring import load_module
from anomalib_defect_plugins.testing.data import write_folder_data

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parents[2] / "docs/samples/inspect.cpp"

IMAGES = [
    np.random.default_rng(number).integers(0, 100 + 8 * number, (30 + number, 60 - number, 3), np.uint8)
    for number in range(20)
]
"""Twenty images of different sizes."""


class Exported(NamedTuple):
    model: AnomalibModule
    datamodule: AnomalibDataModule
    bundle: Path
    output: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Exported:
    """Bundle of a trained model, written by the command."""
    root = tmp_path_factory.mktemp("bundle")
    write_folder_data(root / "data")
    torch.manual_seed(0)
    model, datamodule = make_model("htpgan"), make_datamodule(root / "data")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    engine = Engine(default_root_dir=root, accelerator="cpu", devices=1, **quiet)
    engine.fit(model, datamodule=datamodule)
    move_threshold(model.eval(), datamodule)
    engine.trainer.save_checkpoint(root / "model.ckpt")
    folder = ["--root", str(root / "data"), "--name", "generated", "--normal_dir", "normal"]
    folder += ["--abnormal_dir", "defective", "--normal_test_dir", "normal_test", "--mask_dir", "masks"]
    folder += ["--val_split_mode", "same_as_test"]
    words = ["export", "--ckpt", str(root / "model.ckpt"), "--data", "Folder", "--out", str(root / "bundle"), *folder]
    code = f"import sys; from anomalib_defect_plugins.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return Exported(model, datamodule, root / "bundle", done.stdout + done.stderr)


def move_threshold(model: AnomalibModule, datamodule: AnomalibDataModule) -> None:
    """Move the threshold from a score to the middle of the widest gap, so that rounding decides no verdict."""
    processor = model.post_processor
    scores = np.sort(predict_torch(model, check_images(datamodule, number=200).images).scores)
    widest = np.diff(scores).argmax()
    middle = scores[widest : widest + 2].mean()
    processor._image_threshold += (middle - 0.5) * (processor.image_max - processor.image_min)


@pytest.fixture(scope="module")
def expected(exported: Exported) -> list[Any]:
    """Predictions in PyTorch."""
    with torch.inference_mode():
        return [exported.model(torch.from_numpy(image).permute(2, 0, 1)[None] / 255) for image in IMAGES]


def test_the_export_prints_a_table_and_nothing_of_the_converters(exported: Exported) -> None:
    lines = exported.output.splitlines()
    assert len(lines) <= 12, exported.output
    assert lines[-1].startswith("bundle: ") or any(line.startswith("bundle: ") for line in lines)
    assert "Traceback" not in exported.output


def test_openvino_agrees_with_pytorch(exported: Exported, expected: list[Any]) -> None:
    for result, reference in zip(Inspector.load(exported.bundle).predict(IMAGES), expected, strict=True):
        assert result.score == pytest.approx(reference.pred_score.item(), abs=1e-3)
        assert result.is_defective == bool(reference.pred_label.item())
        np.testing.assert_allclose(result.anomaly_map, reference.anomaly_map.squeeze().numpy(), atol=1e-3)


def test_onnx_runtime_agrees_with_pytorch(exported: Exported, expected: list[Any]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(exported.bundle / "model.onnx", providers=["CPUExecutionProvider"])
    for image, reference in zip(IMAGES, expected, strict=True):
        score, anomaly_map = session.run(["pred_score", "anomaly_map"], {"image": image[None]})
        assert score.item() == pytest.approx(reference.pred_score.item(), abs=1e-3)
        np.testing.assert_allclose(anomaly_map.squeeze(), reference.anomaly_map.squeeze().numpy(), atol=1e-3)


def test_the_service_agrees_with_pytorch(exported: Exported, expected: list[Any]) -> None:
    testclient = pytest.importorskip("fastapi.testclient")
    pytest.importorskip("prometheus_client")
    from anomalib_defect_plugins.deployment.service import create_app

    app = create_app(Inspector.load(exported.bundle), read_metadata(exported.bundle))
    with testclient.TestClient(app) as client:
        for image, reference in zip(IMAGES, expected, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            answer = client.post("/predict", content=buffer.getvalue(), headers={"content-type": "image/png"}).json()
            assert answer["model"] == hash_graph(exported.bundle / "model.xml")
            assert answer["results"][0]["score"] == pytest.approx(reference.pred_score.item(), abs=1e-3)


def test_the_cpp_sample_agrees_with_pytorch(exported: Exported, expected: list[Any], tmp_path: Path) -> None:
    root = Path(openvino.__file__).parent
    library = next(iter(sorted((root / "libs").glob("libopenvino.so.*"))), None)
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or library is None or not (root / "include/openvino/openvino.hpp").is_file():
        pytest.skip("a C++ compiler and OpenVINO's headers are needed")
    binary, headers = tmp_path / "inspect", root / "include"
    flags = [f"-I{headers}", str(library), f"-Wl,-rpath,{library.parent}"]
    subprocess.run([compiler, "-std=c++17", str(SAMPLE), *flags, "-o", str(binary)], check=True)
    paths = [tmp_path / f"{number}.ppm" for number in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    words = [str(binary), str(exported.bundle / "model.xml"), *map(str, paths)]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    for line, reference in zip(lines, expected, strict=True):
        _, score, verdict = line.split()
        assert float(score) == pytest.approx(reference.pred_score.item(), abs=1e-3)
        assert (verdict == "defective") == bool(reference.pred_label.item())


def test_metadata_and_card_describe_the_model(exported: Exported) -> None:
    metadata = read_metadata(exported.bundle)
    processor: Any = exported.model.post_processor
    assert metadata["thresholds"]["raw"]["image"] == pytest.approx(float(processor.image_threshold))
    assert metadata["thresholds"]["image"] == 0.5
    assert metadata["model"]["arguments"]["num_scales"] == 2
    assert metadata["data"]["split"]["test"] == {
        "images": 8,
        "defective": 4,
        "names_sha256": metadata["data"]["split"]["test"]["names_sha256"],
    }
    assert metadata["training"]["command"].startswith("anomalib train --model HtpGan --model.")
    assert metadata["weights"] == {"pretrained": None, "license": "no pretrained weights: that of the training images"}
    card = (exported.bundle / "README.md").read_text()
    assert metadata["hash"] in card
    assert "The test images are also the validation images" in card
    config = json.loads((exported.bundle / "model_server/config.json").read_text())
    name = config["model_config_list"][0]["config"]["name"]
    served = exported.bundle / "model_server" / name / "1" / "model.xml"
    assert served.read_bytes() == (exported.bundle / "model.xml").read_bytes()


def test_a_threshold_is_written_into_a_copy_of_the_bundle(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, image in enumerate(IMAGES):
        (tmp_path / "good").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"good/{number}.png")
    before = [result.score for result in Inspector.load(exported.bundle).predict(IMAGES)]
    at = str(float(np.median(before)))
    words = ["threshold", str(exported.bundle), "--good", str(tmp_path / "good"), "--at", at, "--out", str(tmp_path)]
    assert main([*words, "--precision", "f32", "--write", str(tmp_path / "new")]) == 0
    metadata = read_metadata(tmp_path / "new")
    assert metadata["thresholds"]["origin"].startswith("anomalib-defects threshold, ")
    assert metadata["hash"] in (tmp_path / "new/README.md").read_text()
    served = next((tmp_path / "new/model_server").rglob("model.xml"))
    assert served.read_bytes() == (tmp_path / "new/model.xml").read_bytes()
    verdicts = [result.is_defective for result in Inspector.load(tmp_path / "new").predict(IMAGES)]
    assert verdicts == [np.float32(score) >= np.float32(at) for score in before]
    assert main([*words, "--write"]) == 1
    assert "a bundle is written as a copy: choose a new folder (--write)" in capsys.readouterr().err
    assert read_metadata(exported.bundle)["thresholds"]["image"] == 0.5


def test_the_operating_point_of_a_checkpoint_is_exported_with_it(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, number in (("good", 0), ("bad", 19)):
        (tmp_path / kind).mkdir()
        Image.fromarray(IMAGES[number]).save(tmp_path / kind / "0.png")
    words = [str(exported.bundle.parent / "model.ckpt"), "--model", "HtpGan", "--max-misses", "0.5"]
    words += ["--good", str(tmp_path / "good"), "--bad", str(tmp_path / "bad"), "--out", str(tmp_path / "out")]
    assert main(["threshold", *words, "--write", str(tmp_path / "new.ckpt")]) == 0
    model = load_module(tmp_path / "new.ckpt", "HtpGan")
    export_bundle(model, exported.datamodule, tmp_path / "new", checkpoint=tmp_path / "new.ckpt")
    metadata = read_metadata(tmp_path / "new")
    expected = json.loads((tmp_path / "out/operating_point.json").read_text())
    assert metadata["operating_point"] == {**expected, "date": metadata["operating_point"]["date"]}
    assert metadata["thresholds"]["origin"].endswith("only show at most 95 %), on 1 good and 1 defective image")
    for graph in ("model.xml", "model.onnx"):
        note = {**metadata["operating_point"], "normalized": True}
        assert read_note(openvino_core().read_model(tmp_path / "new" / graph)) == note
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "new"), str(tmp_path / "bad"), "--out", str(tmp_path / "i.parquet")]) == 0
    assert "threshold: at most 50 % misses" in capsys.readouterr().out


@pytest.fixture
def wrong_quantization(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantisation that returns another graph, and an export to ONNX that copies the one of the fixture."""

    def wrong(*_: object) -> openvino.Model:
        network = byte_graph(threshold=2)
        for result in network.get_results():
            if result.output(0).names & {"anomaly_map", "pred_mask"}:  # of another size than those of the model
                network.remove_result(result)
        return network

    monkeypatch.setattr(exporter, "write_onnx", lambda _, path, __: shutil.copy(exported.bundle / "model.onnx", path))
    for name in ("quantize", "quantize_with_control"):
        monkeypatch.setattr(exporter, name, wrong)


@pytest.mark.usefixtures("wrong_quantization")
def test_eight_bits_that_change_verdicts_are_refused_and_fp16_is_offered(exported: Exported, tmp_path: Path) -> None:
    settings = ExportSettings("INT8", calibration_images=2)
    line = r"INT8 is refused, INT8: .* verdicts changed, .*; INT8 mixed: .*; use --precision FP16 \(.*0 of 6 verdicts"
    with pytest.raises(ConfigurationError, match=line) as error:
        export_bundle(exported.model, exported.datamodule, tmp_path / "out", settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"--ckpt": "nothing.ckpt"}, "nothing.ckpt not found; 'anomalib train' writes checkpoints"),
        ({"--ckpt": __file__}, "is not a model; use a checkpoint (.ckpt)"),
        ({"--data": "Nothing"}, "there is no data module 'Nothing'"),
        ({"--model": "nothing"}, "there is no model nothing"),
        ({"--max-auroc-drop": "2"}, "--max-auroc-drop is 2.0"),
    ],
)
def test_wrong_options_are_one_line(
    exported: Exported, tmp_path: Path, changes: dict[str, str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--ckpt": str(exported.bundle.parent / "model.ckpt"), "--data": "TextureDefects", **changes}
    words = [word for pair in options.items() for word in pair]
    assert main(["export", *words, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert line in error.splitlines()[-1]
    assert "Traceback" not in error
