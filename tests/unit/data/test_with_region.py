"""Any data module and model is restricted to a region of interest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.models import Padim
from datamodules import error_line, set_up
from PIL import Image
from tiny_models import make_model
from tiny_padim import engine, padim

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError, MissingDataError
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.data import WithDefects, WithRegion, WithTiles
from anomalib_defect_plugins.layers.restricted_forward import region_of
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data

HEIGHT, WIDTH = 72, 80

INSIDE = np.zeros((HEIGHT, WIDTH), bool)
INSIDE[10:60, :50] = True


def save(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, of whose defects the first lies outside the region, and the region."""
    root = tmp_path_factory.mktemp("region")
    write_folder_data(root / "data")
    for number, (top, left) in enumerate([(62, 60), (20, 10), (30, 45), (40, 20)]):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[top : top + 9, left : left + 12] = True
        save(root / f"data/masks/{number:03}.png", mask * 255)
        image = np.full((HEIGHT, WIDTH, 3), 120)
        image[mask] = 245
        save(root / f"data/defective/{number:03}.png", image)
    save(root / "roi.png", INSIDE * 255)
    return root


def datamodule(root: Path, roi: str = "roi.png") -> WithRegion:
    return WithRegion(folder_datamodule(root / "data"), root / roi)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Padim, Path]:
    """A model that was trained with the region, and its checkpoint."""
    torch.manual_seed(0)
    model, run = padim(), engine(tmp_path_factory.mktemp("run"))
    run.fit(model, datamodule=datamodule(root))
    return model.eval(), Path(run.trainer.checkpoint_callback.best_model_path)  # type: ignore[union-attr]


def test_images_do_not_depend_on_what_is_outside_and_are_unchanged_inside(root: Path) -> None:
    plain, restricted = set_up(folder_datamodule(root / "data")), set_up(datamodule(root))
    for before, after in zip(plain.test_data, restricted.test_data, strict=True):
        assert torch.equal(after.image[:, INSIDE], before.image[:, INSIDE])
        outside = after.image[:, ~INSIDE]
        assert torch.equal(outside, outside[:, :1].expand_as(outside))
        assert not after.gt_mask[~INSIDE].any()


def test_an_image_with_defects_outside_only_is_normal(root: Path) -> None:
    table = set_up(datamodule(root)).test_data.samples
    defective = table[table.image_path.str.contains("/defective/")].set_index("image_path")
    assert defective.label_index.tolist() == [0, 1, 1, 1]
    assert defective.defect_type.iloc[0] == "good"
    item = next(item for item in set_up(datamodule(root)).test_data if item.image_path == defective.index[0])
    assert item.gt_label == 0
    assert not item.gt_mask.any()


def test_images_whose_defects_the_region_removes_are_counted_and_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_up(datamodule(root))
    (message,) = {record.getMessage() for record in caplog.records if "region of interest" in record.getMessage()}
    assert message.startswith("the defects of 1 of 4 defective images are outside the region of interest")
    assert "000.png" in message


def test_a_defect_partly_inside_is_marked_there(root: Path) -> None:
    items = {Path(item.image_path).name: item for item in set_up(datamodule(root)).test_data if item.gt_label}
    assert items["002.png"].gt_mask.sum() == 9 * 5


def test_a_defect_outside_changes_no_bit_of_the_result(trained: tuple[Padim, Path]) -> None:
    model, _ = trained
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    other = torch.where(torch.from_numpy(INSIDE), image, 1 - image)
    with torch.no_grad():
        first, second, inside = model(image), model(other), model(1 - other)
    for name in ("anomaly_map", "pred_score", "pred_label", "pred_mask"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.anomaly_map, inside.anomaly_map)


def test_nothing_outside_is_marked_or_scored(root: Path, trained: tuple[Padim, Path], tmp_path: Path) -> None:
    model, _ = trained
    # The centres of pixels of the map.
    rows, columns = ((2 * np.arange(64) + 1) * side // 128 for side in (HEIGHT, WIDTH))
    inside = INSIDE[rows[:, None], columns]
    for batch in engine(tmp_path).predict(model, data_path=root / "data/defective") or []:
        maps = batch.anomaly_map[0].squeeze()
        assert (maps[~inside] == maps[inside].min()).all()
        assert not batch.pred_mask.squeeze()[~inside].any() or maps[inside].min() > 0.5


def test_a_region_of_whole_images_changes_no_bit(root: Path, tmp_path: Path) -> None:
    save(root / "all.png", np.full((9, 7), 255))
    outputs = []
    for data in (folder_datamodule(root / "data"), datamodule(root, "all.png")):
        torch.manual_seed(0)
        model, run = padim(), engine(tmp_path)
        run.fit(model, datamodule=data)
        outputs.append(run.predict(model, datamodule=data, return_predictions=True))
    for plain, restricted in zip(*outputs, strict=True):
        assert torch.equal(plain.anomaly_map, restricted.anomaly_map)
        assert torch.equal(plain.pred_score, restricted.pred_score)


def test_checkpoints_of_any_model_keep_the_region(trained: tuple[Padim, Path]) -> None:
    model, checkpoint = trained
    loaded: Any = Padim.load_from_checkpoint(checkpoint).eval()
    assert np.array_equal(region_of(loaded).fixed, INSIDE)  # type: ignore[union-attr]
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        assert torch.equal(model(image).anomaly_map, loaded(image).anomaly_map)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["padim", "onestage"])
def test_the_exported_graph_has_the_region(
    root: Path, trained: tuple[Padim, Path], tmp_path: Path, method: str
) -> None:
    model: Any = trained[0]
    checkpoint = trained[1]
    if method == "onestage":
        model, run = make_model(method), engine(tmp_path)
        base = WithDefects(folder_datamodule(root / "data"), real=2)
        run.fit(model, datamodule=WithRegion(base, root / "roi.png"))
        checkpoint = Path(run.trainer.checkpoint_callback.best_model_path)  # type: ignore[union-attr]
        model.eval()
    loaded: Any = type(model).load_from_checkpoint(checkpoint)
    path = engine(tmp_path).export(loaded, "openvino", export_root=tmp_path)
    graph = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    other = torch.where(torch.from_numpy(INSIDE), image, 1 - image)
    with torch.no_grad():
        expected = model(image)
    first, second = graph(image.numpy()), graph(other.numpy())
    for name in ("anomaly_map", "pred_score"):
        assert np.array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], getattr(expected, name), atol=1e-3)


def test_each_image_may_have_its_own_region(root: Path, tmp_path: Path) -> None:
    for path in (root / "data").glob("*/*.png"):
        region = INSIDE if path.parent.name == "normal" else ~INSIDE
        save(root / "regions" / path.parent.name / path.name, region * 255)
    data = datamodule(root, "regions")
    model, run = padim(), engine(tmp_path)
    run.fit(model, datamodule=data)
    table = data.test_data.samples
    assert table[table.image_path.str.contains("/defective/")].label_index.tolist() == [1, 0, 1, 0]
    (batch, *_) = run.predict(model, datamodule=data, return_predictions=True)
    maps = batch.anomaly_map[0].squeeze()
    assert (maps[20:40, 10:30] == maps[20, 10]).all()  # outside in test images
    assert len(maps[:, 50:].unique()) > 100


def test_synthetic_defects_are_not_drawn_outside(root: Path) -> None:
    from lightning.pytorch import Trainer

    base = WithDefects(folder_datamodule(root / "data"), synthetic="noise", synthetic_ratio=1.0)
    data = set_up(WithRegion(base, root / "roi.png"))
    data.trainer = Trainer(logger=False, accelerator="cpu")
    data.trainer.training = True
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    inside = torch.from_numpy(INSIDE)
    assert batch.gt_mask[:, inside].any()
    assert not batch.gt_mask[:, ~inside].any()
    assert torch.equal(batch.gt_label.bool(), batch.gt_mask.flatten(1).any(1))
    assert (batch.image[:, :, ~inside].std(-1) < 1e-5).all()


def test_the_order_of_wrappers_is_checked(root: Path) -> None:
    region = datamodule(root)
    for wrap in (
        WithDefects,
        lambda base: WithRegion(base, root / "roi.png"),
        lambda base: WithRegion(WithTiles(base), root),
    ):
        with pytest.raises(ConfigurationError, match="the order is WithTiles, WithRegion, WithDefects"):
            wrap(region)


def test_a_missing_or_empty_region_is_an_error_of_one_line(root: Path) -> None:
    save(root / "black.png", np.zeros((4, 4)))
    line = error_line(lambda: datamodule(root, "black.png"), InvalidInputError, root)
    assert line == "roi_mask ROOT/black.png marks nothing, so that nothing would be inspected; draw the region in white"
    line = error_line(lambda: datamodule(root, "none.png"), MissingDataError, root)
    assert line.startswith("roi_mask ROOT/none.png not found; pass a mask")
    (root / "few").mkdir()
    line = error_line(lambda: set_up(datamodule(root, "few")).train_data[0], MissingDataError, root)
    assert line.startswith("roi_mask ROOT/few has no region of ROOT/data/")
