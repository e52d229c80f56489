"""Training on tiles, evaluation of whole images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from datamodules import set_up
from PIL import Image
from tiny_padim import engine, padim
from torchvision.tv_tensors import Mask

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data import CheckedDataset, WithDefects, WithRegion, WithTiles
from anomalib_defect_plugins.data.restriction import restricted_forward
from anomalib_defect_plugins.data.summary import summarize_datamodule
from anomalib_defect_plugins.data.tile_set import ByImage, TileSet
from anomalib_defect_plugins.models.sidn import Sidn
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data

HEIGHT, WIDTH, SIZE = 150, 170, 64


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a mask with a defect of 2 x 3 pixels and one that is larger than a tile."""
    root = tmp_path_factory.mktemp("tiles")
    write_folder_data(root / "data", (HEIGHT, WIDTH), normal=4, normal_test=2, defective=3)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:7, 160:163] = 255
    mask[40:130, 20:30] = 255
    Image.fromarray(mask).save(root / "data/masks/000.png")
    return root


def datamodule(root: Path, **arguments: Any) -> WithTiles:
    return WithTiles(folder_datamodule(root / "data"), SIZE, **arguments)


def masked(root: Path, **arguments: Any) -> WithTiles:
    return set_up(WithTiles(WithDefects(folder_datamodule(root / "data"), real="all"), SIZE, **arguments))


def test_normal_training_images_are_split_into_all_tiles(root: Path) -> None:
    data = set_up(datamodule(root))
    # 3 rows and 4 columns: (150 - 16) / 48 and (170 - 16) / 48, rounded up.
    assert len(data.train_data) == 4 * 3 * 4
    plain = set_up(folder_datamodule(root / "data")).train_data[0].image
    tile = data.train_data[int(np.flatnonzero(data.train_data.samples.row == 0)[-1])]
    assert torch.equal(tile.image, plain[:, -SIZE:, -SIZE:])
    assert len(set_up(datamodule(root, per_image=5)).train_data) == 4 * 5


def test_validation_and_test_images_stay_whole(root: Path) -> None:
    data = set_up(datamodule(root))
    for subset in (data.val_data, data.test_data):
        assert {tuple(item.image.shape) for item in subset} == {(3, HEIGHT, WIDTH)}
    assert data.test_dataloader().batch_size == 1


def test_every_defect_has_windows_that_contain_it(root: Path) -> None:
    data = masked(root, per_defect=3)
    table = data.train_data.samples
    windows = table[table.image_path.str.endswith("defective/000.png") & (table.label_index == 1)]
    assert len(windows) == 2 * 3
    masks = [data.train_data[int(row)].gt_mask for row in windows.index]
    assert all(mask.any() for mask in masks)
    assert sum(int(mask.sum()) == 6 for mask in masks) >= 3  # the small defect, whole
    assert len({(row.tile_top, row.tile_left) for row in windows.itertuples()}) > 3


def test_other_tiles_of_defective_images_are_normal(root: Path) -> None:
    data = masked(root)
    table = data.train_data.samples
    normal = table[table.image_path.str.contains("/defective/") & (table.label_index == 0)]
    assert len(normal)
    assert all(not data.train_data[int(row)].gt_mask.any() for row in normal.index)
    assert set(normal.defect_type) == {"good"}


def test_tiles_outside_the_region_are_not_trained_on(root: Path) -> None:
    region = np.zeros((HEIGHT, WIDTH), np.uint8)
    region[:20, :20] = 255
    Image.fromarray(region).save(root / "roi.png")
    data = set_up(WithTiles(WithRegion(folder_datamodule(root / "data"), root / "roi.png"), SIZE))
    table = data.train_data.samples
    assert len(table) == 4
    assert set(table.tile_top) == set(table.tile_left) == {0}


def test_defects_without_masks_are_refused(root: Path) -> None:
    base = WithDefects(folder_datamodule(root / "data"), real=1, masks=False)
    with pytest.raises(ConfigurationError, match="is defective and has no mask"):
        set_up(WithTiles(base, SIZE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 8}, "size is 8"),
        ({"size": 64, "overlap": 40}, "overlap is 40; it must be from 0 to half of the size, 32"),
        ({"size": 64, "per_image": 0}, "per_image is 0"),
        ({"size": 64, "per_defect": -1}, "per_defect is -1"),
    ],
)
def test_arguments_are_checked(root: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        WithTiles(folder_datamodule(root / "data"), **arguments)


def test_whole_images_are_read_once_in_an_epoch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = set_up(datamodule(root))
    monkeypatch.setattr("anomalib_defect_plugins.data.tile_set.CACHED_PIXELS", 2 * HEIGHT * WIDTH)
    read: list[int] = []
    load = TileSet.load_whole
    monkeypatch.setattr(TileSet, "load_whole", lambda self, row: read.append(row) or load(self, row))
    tiles = [tuple(batch.image.shape) for batch in data.train_dataloader()]
    assert tiles == [(4, 3, SIZE, SIZE)] * 12
    assert sorted(read) == [0, 1, 2, 3]


def test_tiles_are_in_another_order_in_each_epoch_and_those_of_a_few_images_are_mixed() -> None:
    image_of = np.repeat(np.arange(6), 5)
    order = ByImage(range(30), image_of.tolist(), at_once=2)
    first, second = list(order), list(order)
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second
    for start in (0, 10, 20):
        images = image_of[first[start : start + 10]].tolist()
        assert len(set(images)) == 2
        assert images not in ([min(images)] * 5 + [max(images)] * 5, [max(images)] * 5 + [min(images)] * 5)


def test_maps_and_scores_are_those_of_whole_images_and_the_model_takes_tiles_afterwards(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    data, model, run = datamodule(root), padim(), engine(tmp_path)
    run.fit(model, datamodule=data)
    assert caplog.text.count("Padim uses the position in an image") == 1
    predictions: Any = run.predict(model, datamodule=data, return_predictions=True)
    assert restricted_forward(model).tiling is None
    network = model.model.eval()
    for batch in predictions:
        assert batch.anomaly_map.shape[-2:] == batch.gt_mask.shape[-2:] == (HEIGHT, WIDTH)
        tiles = [
            batch.image[..., top : top + SIZE, left : left + SIZE] for top in (0, 43, 86) for left in (0, 35, 70, 106)
        ]
        with torch.no_grad():
            scores = [network(model.pre_processor.transform(tile)).pred_score.item() for tile in tiles]
        raw = model.post_processor._normalize(
            torch.tensor(max(scores)),
            *(getattr(model.post_processor, name) for name in ("image_min", "image_max", "image_threshold")),
        )
        assert batch.pred_score.item() == pytest.approx(raw.item(), abs=1e-5)


def test_figures_are_computed_at_the_original_size_and_reduced_above_the_maximum(root: Path, tmp_path: Path) -> None:
    for maximum, shape in ((HEIGHT * WIDTH, (HEIGHT, WIDTH)), (HEIGHT * WIDTH // 4, (HEIGHT // 2, WIDTH // 2))):
        data, model, run = datamodule(root, max_map_pixels=maximum), padim(), engine(tmp_path)
        run.fit(model, datamodule=data)
        (batch, *_) = run.predict(model, datamodule=data, return_predictions=True)
        assert batch.anomaly_map.shape[-2:] == batch.gt_mask.shape[-2:] == shape


def test_a_model_of_this_package_takes_the_size_of_tiles(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Sidn(backbone=None, channels=2, clusters=2, iterations=4, visualizer=False)
    data, run = datamodule(root), engine(tmp_path)
    run.fit(model, datamodule=data)
    assert "position" not in caplog.text
    assert model.image_size == (SIZE, SIZE)
    (metrics,) = run.test(model, datamodule=data, verbose=False)
    assert {"image_AUROC", "pixel_AUROC"} <= set(metrics)


def test_means_of_positions_are_warned_of(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options: Any = {"channels": 2, "clusters": 2, "iterations": 1, "visualizer": False, "evaluator": False}
    for means in (True, False):
        model = Sidn(backbone="test_resnet.r160_in1k", position_means=means, **options)
        engine(tmp_path / str(means)).fit(model, datamodule=datamodule(root))
        assert ("pass --model.position_means false" in caplog.text) is means
        caplog.clear()


def test_a_tile_of_a_small_image_repeats_its_last_row_and_column(tmp_path: Path) -> None:
    write_folder_data(tmp_path, (40, 50), normal=2)
    modes = {"val_split_mode": "none", "test_split_mode": "none"}
    data = set_up(WithTiles(Folder("small", root=tmp_path, normal_dir="normal", num_workers=0, **modes), SIZE))
    image = data.train_data[0].image
    assert image.shape == (3, SIZE, SIZE)
    assert torch.equal(image[:, 40:, :50], image[:, 39:40, :50].expand(-1, 24, -1))


def test_ignored_pixels_are_cut_into_tiles(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ignored = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    ignored[-30:, -20:] = True
    monkeypatch.setattr(CheckedDataset, "load_ignored", lambda *_: Mask(ignored, dtype=torch.uint8))
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(root / "whole.png")
    for base in (folder_datamodule(root / "data"), WithRegion(folder_datamodule(root / "data"), root / "whole.png")):
        train = set_up(WithTiles(base, SIZE)).train_data
        last = int(np.flatnonzero(train.samples.row == 0)[-1])
        assert torch.equal(train[last].ignore_mask, ignored[-SIZE:, -SIZE:])


def test_the_summary_of_the_data_counts_tiles(root: Path) -> None:
    summary = summarize_datamodule(set_up(datamodule(root)))
    assert [entry["splits"] for entry in summary["shared"]] == [["val", "test"]]
    assert summary["sizes"][0] == {"width": SIZE, "height": SIZE, "images": 48}
