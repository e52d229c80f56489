"""``Inspector`` on images in memory, graphs of bytes, precision near the threshold, devices and pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import pandas as pd
import pytest
import torch
from bright_graph import bright_graph, byte_graph
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.inference.bundle import hash_graph, read_metadata
from anomalib_defect_plugins.inference.inspect_folder import inspect_images
from anomalib_defect_plugins.inference.openvino import Inspector
from anomalib_defect_plugins.inference.pictures import picture_path
from anomalib_defect_plugins.inference.predictor import InspectSettings

SPOT = np.zeros((8, 10, 3), np.uint8)
SPOT[2:4, 3:8] = 204  # 10 pixels of 0.8
SPOT[6, 9] = 153  # 1 pixel of 0.6


@pytest.mark.parametrize("graph", [bright_graph, byte_graph])
@pytest.mark.parametrize(
    "image", [SPOT, SPOT[..., 0], SPOT / 255, Image.fromarray(SPOT), torch.from_numpy(SPOT).permute(2, 0, 1)]
)
def test_images_in_memory_have_the_score_of_their_file(graph: Any, image: Any) -> None:
    result = Inspector(graph())(image)
    assert result.score == pytest.approx(0.8, abs=1e-6)
    assert result.is_defective
    np.testing.assert_allclose(result.anomaly_map, SPOT[..., 0] / 255, atol=1e-6)


def test_regions_are_boxes_and_areas_in_pixels_of_the_image() -> None:
    result = Inspector(byte_graph())(SPOT)
    assert result.regions is not None
    assert [(each.area, each.x, each.y, each.width, each.height) for each in result.regions] == [
        (10, 3, 2, 5, 2),
        (1, 9, 6, 1, 1),
    ]
    assert [each.mean_score for each in result.regions] == pytest.approx([0.8, 0.6])


def test_a_threshold_for_images_applies_to_the_regions_too() -> None:
    (region,) = Inspector(byte_graph(), InspectSettings(threshold=0.7))(SPOT).regions or []
    assert region.area == 10


def test_a_graph_without_threshold_has_no_regions() -> None:
    result = Inspector(bright_graph(threshold=float("nan")), InspectSettings(threshold=0.7))(SPOT)
    assert result.is_defective
    assert result.mask is None
    assert result.regions is None


@pytest.mark.parametrize("batch", [1, 3])
def test_an_endless_stream_is_inspected_in_order(batch: int) -> None:
    def frames() -> Any:
        number = 0
        while True:
            side = 4 + number % 2  # sizes alternate within a batch
            yield np.full((side, 4, 3), number % 256, np.uint8)
            number += 1

    results = Inspector(byte_graph(), InspectSettings(batch=batch)).predict(frames())
    scores = [next(results).score for _ in range(50)]
    assert scores == pytest.approx([number / 255 for number in range(50)], abs=1e-6)


def test_a_fixed_size_graph_resizes_images_in_memory() -> None:
    network = byte_graph()
    network.reshape([1, 4, 5, 3])
    inspector = Inspector(network)
    assert inspector.size == (4, 5)
    assert inspector(np.full((40, 50), 102, np.uint8)).score == pytest.approx(0.4)
    assert inspector(np.full((40, 50), 0.4)).score == pytest.approx(0.4)


def test_a_bad_image_in_a_stream_is_one_line() -> None:
    with pytest.raises(InvalidInputError, match="the data is not an image"):
        list(Inspector(byte_graph()).predict([SPOT, b"nothing"]))


def test_scores_near_the_threshold_are_computed_again_in_single_precision() -> None:
    inspector = Inspector(byte_graph(), InspectSettings(precision="bf16"), size=(8, 10))
    used: list[str] = []
    own = inspector._graph

    def graph(shape: Any, precision: str | None = None) -> Any:
        used.append(precision or inspector.settings.precision)
        return own(shape, precision)

    inspector._graph = graph  # type: ignore[method-assign]
    inspector(SPOT)
    assert used == ["bf16"]
    inspector(np.full((8, 10, 3), 134, np.uint8))  # 0.525
    assert used == ["bf16", "bf16", "f32"]


@pytest.mark.parametrize("device", ["NPU", "GPU", "gpu", "TPU", "AUTO:GPU", ""])
def test_a_device_that_is_missing_is_named_with_those_there_are(device: str) -> None:
    if device in openvino_core().available_devices:
        pytest.skip(f"this machine has a {device}")
    with pytest.raises(InvalidInputError, match=rf"--device {device}: OpenVINO finds no .*only CPU.*use one of these"):
        Inspector(byte_graph(), InspectSettings(device=device))


def test_the_device_auto_is_taken() -> None:
    assert Inspector(byte_graph(), InspectSettings(device="AUTO"))(SPOT).score == pytest.approx(0.8, abs=1e-2)


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/data/a/b.png", "/data", "a/b.png"),
        ("/data/a/b.jpg", "/data", "a/b.jpg.png"),
        ("/data/a/b", "/data", "a/b.png"),
        ("/data/a/b.PNG", None, "b.PNG.png"),
        ("/data/a/b.jpg.png", "/data", "a/b.jpg.png.png"),
        ("/data/a/b.v2.png", "/data", "a/b.v2.png"),
    ],
)
def test_pictures_are_named_after_images_without_collisions(path: str, root: str | None, expected: str) -> None:
    assert picture_path(path, Path(root) if root else None) == Path(expected)


def grey(picture: Path) -> npt.NDArray[Any]:
    with Image.open(picture) as image:
        return np.asarray(image).astype(int)


def test_pictures_of_a_folder_and_the_model_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "images/sub").mkdir(parents=True)
    for name in ("a.png", "sub/a.png", "a.bmp"):
        Image.fromarray(SPOT).save(tmp_path / "images" / name)
    openvino.save_model(byte_graph(), tmp_path / "model.xml")
    settings = InspectSettings(pictures=tmp_path / "pictures")
    inspect_images(tmp_path, tmp_path / "images", tmp_path / "out.parquet", settings)
    names = {"a.png", "a.bmp.png", "sub/a.png"}
    for kind in ("map", "mask", "overlay"):
        folder = tmp_path / "pictures" / kind
        assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == names
    assert (grey(tmp_path / "pictures/map/sub/a.png") == SPOT[..., 0]).all()
    assert (grey(tmp_path / "pictures/mask/a.png") > 0).sum() == 11
    overlay = grey(tmp_path / "pictures/overlay/a.png")
    assert overlay.shape == (8, 10, 3)
    assert overlay[2:4, 3:8].sum() > 10 * overlay[0, 0].sum()  # the defect is visible
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert set(table.model) == {hash_graph(tmp_path / "model.xml")}
    assert [region["area"] for region in table.regions[0]] == [10, 1]


def test_metadata_of_another_graph_is_refused(tmp_path: Path) -> None:
    openvino.save_model(byte_graph(), tmp_path / "model.xml")
    assert read_metadata(tmp_path) == {}
    (tmp_path / "metadata.json").write_text('{"task": "of another program"}')
    assert read_metadata(tmp_path) == {}
    (tmp_path / "metadata.json").write_text('{"bundle_format": 1, "hash": "0"}')
    with pytest.raises(InvalidInputError, match=r"describes another graph than model\.xml"):
        read_metadata(tmp_path)
    (tmp_path / "metadata.json").write_text("{")
    with pytest.raises(InvalidInputError, match=r"metadata\.json is damaged"):
        read_metadata(tmp_path)
    with pytest.raises(InvalidInputError, match=r"metadata\.json is damaged"):  # as inspect and watch read it
        Inspector.load(tmp_path)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(MissingDataError, match=r"model\.bin not found; 'anomalib-defects export' writes"):
        Inspector.load(tmp_path)
