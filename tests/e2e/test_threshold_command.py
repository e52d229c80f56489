"""``anomalib-defects threshold`` on checkpoints and exported graphs of anomalib's own models."""

import json
import re
from pathlib import Path

import numpy as np
import openvino
import pandas as pd
import pytest
from anomalib import PrecisionType
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import AnomalibModule, Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from bright_graph import bright_graph
from PIL import Image
from torchvision.transforms.v2 import Resize

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.inference.run_model import load_checkpoint
from anomalib_defect_plugins.inference.scoring import CheckpointScorer, GraphScorer, load_scorer

SIZE = (32, 32)

COUNTS = {"train/good": 12, "test/good": 140, "test/spot": 40, "test/scratch": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with spots and scratches of many contrasts, in the layout of MVTec."""
    folder, rng = tmp_path_factory.mktemp("threshold"), np.random.default_rng(0)
    for name, count in COUNTS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(60, 120, (*SIZE, 3))
            if "good" not in name:
                rows = slice(10, 18) if "spot" in name else slice(15, 17)
                pixels[rows, 8:24] += rng.integers(5, 120)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:03}.png")
    return folder


PATCHCORE = pytest.param(
    Patchcore,
    marks=pytest.mark.skipif(
        PrecisionType.FLOAT32.__reduce_ex__(2)[0] is getattr,
        reason="Python 3.11.2 pickles members of enumerations in a way that torch.load refuses with weights_only",
    ),
)
"""PatchCore, whose checkpoints contain one."""


@pytest.fixture(scope="module", params=[Padim, PATCHCORE], ids=lambda cls: cls.__name__)
def trained(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a small model; its path names the model, as those of anomalib do."""
    root = tmp_path_factory.mktemp("results")
    arguments = {"n_features": 12} if request.param is Padim else {"coreset_sampling_ratio": 0.05}
    model: AnomalibModule = request.param(
        backbone="resnet18",
        layers=["layer1"],
        pre_trained=False,
        pre_processor=PreProcessor(Resize(SIZE, antialias=True)),
        evaluator=False,
        visualizer=False,
        **arguments,
    )
    datamodule = Folder(
        "noise",
        root=folder,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/spot",
        num_workers=0,
    )
    engine = Engine(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=root
    )
    engine.fit(model, datamodule=datamodule)
    path = root / request.param.__name__ / "model.ckpt"
    engine.trainer.save_checkpoint(path, weights_only=True)
    return path


@pytest.mark.slow
def test_checkpoint_and_graph_decide_as_stated_and_alike_on_200_images(
    trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = folder / "test", trained.with_name("new.ckpt")
    arguments = ["--max-false-alarms", "0.1", "--out", str(tmp_path / "out")]
    assert main(["threshold", str(trained), str(images), *arguments, "--write", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "140 good, 60 defective" in printed
    assert "misses, spot" in printed
    assert "decides as stated on the 200 images closest to the threshold" in printed
    record = json.loads((tmp_path / "out/operating_point.json").read_text())
    assert record["false_alarms"]["total"] == 140
    assert 0 < record["false_alarms"]["count"] <= 14

    scores = pd.read_csv(tmp_path / "out/scores.csv")
    assert (scores.pred_label == (scores.score >= record["threshold"])).all()
    module = load_checkpoint(out, type(load_scorer(out).module))
    module.to_openvino(tmp_path)
    checkpoint, graph = CheckpointScorer(module), GraphScorer(tmp_path / "weights/openvino/model.xml", "f32")
    for path, label in zip(scores.path, scores.pred_label, strict=True):
        assert checkpoint.verdict(path) == graph.verdict(path) == bool(label)

    model = tmp_path / "weights/openvino/model.xml"
    arguments = [str(model), str(images), "--max-misses", "0.2", "--out", str(tmp_path / "graph"), "--precision", "f32"]
    assert main(["threshold", *arguments, "--write"]) == 0
    assert "decides as stated on the 200 images closest to the threshold" in capsys.readouterr().out
    assert main(["inspect", str(model), str(images), "--out", str(tmp_path / "o.parquet"), "--precision", "f32"]) == 0
    assert "threshold: at most 20 % misses, with 95 % confidence, from 140 good and 60" in capsys.readouterr().out
    inspected = pd.read_parquet(tmp_path / "o.parquet").set_index("path").pred_label
    expected = pd.read_csv(tmp_path / "graph/scores.csv").set_index("path").pred_label
    assert (inspected.sort_index() == expected.sort_index()).all()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.xml"
    openvino.save_model(bright_graph(), path, compress_to_fp16=False)
    return path


def test_a_minimum_area_is_applied_by_inspect(
    graph: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, new = folder / "test", tmp_path / "new.xml"
    arguments = [str(graph), str(images), "--max-false-alarms", "0.1", "--min-area", "0.01", "--mm-per-pixel", "0.02"]
    assert main(["threshold", *arguments, "--out", str(tmp_path / "out"), "--write", str(new)]) == 0
    assert "defects of 25 pixels or more" in capsys.readouterr().out  # 0.01 mm2 at 0.0004 mm2 a pixel
    assert main(["inspect", str(new), str(images), "--out", str(tmp_path / "o.parquet")]) == 0
    inspected = pd.read_parquet(tmp_path / "o.parquet").set_index("path").pred_label
    expected = pd.read_csv(tmp_path / "out/scores.csv").set_index("path").pred_label
    assert 0 < expected.sum() < 200
    assert (inspected.sort_index() == expected.sort_index()).all()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["IMAGES"], "no rule; pass one of --max-misses"),
        (["IMAGES", "--max-misses", "0.1", "--at", "0.5"], "several rules; pass one of"),
        (["IMAGES", "--cost-miss", "5"], "a cost is missing; pass all of --cost-miss"),
        (["IMAGES", "--max-misses", "5"], "--max-misses is 5.0; it must be above 0 and below 1"),
        (["IMAGES", "--at", "nan"], "--at is nan; it must be a finite number"),
        (["IMAGES", "--at", "0.5", "--min-area", "-1"], "--min-area is -1.0; it must be above 0"),
        (["IMAGES", "--at", "0.5", "--mm-per-pixel", "1"], "--mm-per-pixel is the scale of --min-area"),
        (["IMAGES", "--at", "0.5", "--min-area", "5000"], "the minimum area of a defect is 5000 pixels, more than"),
        (["--max-misses", "0.1"], "no images; pass a folder with the subfolder good"),
        (["nothing", "--max-misses", "0.1"], "nothing is not a folder"),
        (["EMPTY", "--max-misses", "0.1"], "has no subfolder good; pass the folders"),
        (["--good", "EMPTY", "--max-false-alarms", "0.1"], "contains no images"),
        (["--good", "GOOD", "--max-misses", "0.1"], "--max-misses needs defective images and there are none"),
        (["--bad", "GOOD", "--max-false-alarms", "0.1"], "there are no good images; pass some with --good"),
        (["--good", "GOOD", "--bad", "GOOD", "--at", "0.5"], "is among the good and the defective images"),
    ],
)
def test_wrong_options_are_one_line(
    graph: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    paths = {"IMAGES": folder / "test", "GOOD": folder / "test/good", "EMPTY": tmp_path}
    words = [str(paths.get(word, word)) for word in arguments]
    assert main(["threshold", str(graph), *words, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert line in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("none.ckpt", None, "none.ckpt not found"),
        ("model.txt", b"text", "model.txt is not a model; use a checkpoint"),
        ("broken.xml", b"<net>", "broken.xml cannot be loaded"),
        ("broken.ckpt", b"text", "broken.ckpt cannot be loaded"),
        ("Padim/broken.ckpt", b"text", "broken.ckpt cannot be loaded"),
    ],
)
def test_a_broken_model_is_one_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, line: str
) -> None:
    model = tmp_path / name
    if content is not None:
        model.parent.mkdir(exist_ok=True)
        model.write_bytes(content)
        model.with_suffix(".bin").touch()
    assert main(["threshold", str(model), str(folder / "test"), "--at", "1", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert re.search(line, error)
    assert error.count("\n") == 1
