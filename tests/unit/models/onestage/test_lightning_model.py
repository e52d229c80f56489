"""OneStage as an anomalib module: training, masks, thresholds and invalid arguments."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.data.utils import ValSplitMode, read_mask
from PIL import Image as PillowImage
from torchvision.transforms.v2 import Compose, Resize
from torchvision.tv_tensors import Image, Mask

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.data import DefectFolder, WithDefects
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.models.onestage.lightning_model import SIGMA
from anomalib_defect_plugins.pre_processing import AntialiasedPreProcessor
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import Run, fit, run_openvino, seed_all

PAPER: dict[str, Any] = {
    "backbone": None,
    "prior": 0.01,
    "score": "mean",
    "defect_weight": None,
    "augment": False,
    "annealing": False,
}
"""Arguments of the paper's network and training."""

BACKBONE = "test_efficientnet"
"""A timm model of a few thousand weights."""


def tiny(**arguments: Any) -> OneStage:
    defaults = {"image_size": (32, 40), "width": "small", "iterations": 2, **PAPER}
    return OneStage(**defaults | {"evaluator": False, "visualizer": False} | arguments)


@pytest.fixture
def datamodule(tmp_path: Path) -> WithDefects:
    write_folder_data(tmp_path / "data", image_size=(40, 48), normal=4, normal_test=2, defective=4)
    return WithDefects(folder_datamodule(tmp_path / "data"), real=2)


def trained(datamodule: WithDefects, folder: Path, **arguments: Any) -> Run:
    seed_all(0)
    return fit(tiny(**arguments), datamodule, folder / "results", {})


def batch(masks: torch.Tensor, labels: list[int]) -> ImageBatch:
    images = torch.rand(len(masks), 3, *masks.shape[-2:])
    paths = [f"{number}.png" for number in range(len(masks))]
    return ImageBatch(image=Image(images), gt_mask=Mask(masks), gt_label=torch.tensor(labels), image_path=paths)


# Training


def test_the_default_has_a_pretrained_encoder_and_the_papers_suppression():
    model = OneStage()
    assert (model.model.fine_iterations, model.model.coarse_suppression) == (3, True)
    assert (model.hparams.backbone, model.hparams.pre_trained, model.hparams.image_size) == (
        "mobilenetv2_100",
        True,
        None,
    )
    assert model.supervision.name == "PIXEL_MASKS"


@pytest.mark.parametrize(
    ("backbone", "size", "expected"),
    [
        (BACKBONE, (100, 52), (96, 48)),
        (None, (100, 52), (96, 48)),
        (None, (44, 60), (48, 64)),
        (BACKBONE, (20, 20), (32, 32)),
    ],
)
def test_the_image_size_is_that_of_the_training_images_in_multiples_of_the_coarsest_stride(
    tmp_path, backbone, size, expected
):
    write_folder_data(tmp_path / "data", image_size=size, normal=4, normal_test=2, defective=4)
    data = WithDefects(folder_datamodule(tmp_path / "data"), real=2)
    run = trained(data, tmp_path, image_size=None, backbone=backbone)
    assert run.model.image_size == expected
    loaded = OneStage.load_from_checkpoint(run.engine.best_model_path, map_location="cpu")
    assert loaded.image_size == loaded.input_size == expected


def test_training_leaves_the_averages_of_the_pretraining(datamodule, tmp_path):
    seed_all(0)
    before = tiny(image_size=(32, 48), backbone=BACKBONE).model.encoder.state_dict()
    run = trained(datamodule, tmp_path, image_size=(32, 48), backbone=BACKBONE, encoder_rate=1.0)
    after = run.model.model.encoder.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "running" in name)
    assert any(not torch.equal(after[name], before[name]) for name in before if "running" not in name)


@pytest.mark.parametrize("encoder_rate", [0.0, 0.1, 1.0])
def test_the_encoder_is_trained_at_a_rate_of_its_own(encoder_rate):
    model = tiny(image_size=(32, 48), backbone=BACKBONE, encoder_rate=encoder_rate, learning_rate=1e-2)
    encoder = set(model.model.encoder.parameters())
    rates = {weight: group["lr"] for group in model.configure_optimizers().param_groups for weight in group["params"]}
    assert all(rates[weight] == 1e-2 for weight in set(model.parameters()) - encoder)
    if encoder_rate:
        assert all(rates[weight] == pytest.approx(encoder_rate * 1e-2) for weight in encoder)
    else:
        assert not encoder & set(rates)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"norm": "instance"},
        {"norm": "batch", "augment": True},
        {"defect_weight": 0.5, "annealing": True},
        {"backbone": BACKBONE, "pre_trained": False, "image_size": (48, 48), "encoder_rate": 1.0, "density_weight": 0},
    ],
    ids=["group", "instance", "batch", "weighted", "backbone"],
)
def test_training_learns_to_locate_the_spots(datamodule, tmp_path, arguments):
    """The spots of the generated data are brighter than anything else, so few steps suffice."""
    settings = {"image_size": (40, 48), "iterations": 40, "learning_rate": 1e-2, "prior": 0.05}
    run = trained(datamodule, tmp_path, **settings | arguments)
    item = next(iter(run.datamodule.test_dataloader()))
    with torch.inference_mode():
        images, masks = run.model.pre_processor.transform(item.image, item.gt_mask)
        maps = run.model.model.eval()(images).anomaly_map[:, 0]
    defective = item.gt_label.bool()
    if run.model.model.density is not None:  # the maps are log-odds
        maps = maps.sigmoid()
    assert maps[masks].mean() > 10 * maps[~masks].mean()
    scores = maps.mean((1, 2))
    assert scores[defective].min() > scores[~defective].max()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(
            {"norm": "instance", "coarse_suppression": False}, marks=pytest.mark.long, id="instance norm, FBS"
        ),
        pytest.param(
            {"norm": "batch", "coarse_suppression": False, "fine_iterations": 0},
            marks=pytest.mark.long,
            id="batch norm, U-Net",
        ),
        pytest.param(
            {"backbone": BACKBONE, "image_size": (32, 48), "stages": [8, 4, 2], "score": "top"}, id="backbone"
        ),
    ],
)
def test_the_exported_graph_of_each_variant_agrees_with_pytorch(datamodule, tmp_path, arguments):
    run = trained(datamodule, tmp_path, prior=0.3, **arguments)
    path = run.engine.export(run.model, "openvino", export_root=tmp_path)
    images = torch.rand(1, 3, 50, 60)
    with torch.inference_mode():
        expected = run.model.eval()(images)
    result = run_openvino(path, images)
    assert torch.allclose(torch.from_numpy(result["anomaly_map"]), expected.anomaly_map, atol=1e-3)
    assert torch.allclose(torch.from_numpy(result["pred_score"]), expected.pred_score, atol=1e-3)


def test_a_checkpoint_stores_every_argument(datamodule, tmp_path):
    arguments = {"norm": "batch", "coarse_suppression": False, "fine_iterations": 2, "prior": 0.2, "augment": True}
    arguments |= {"defect_weight": 0.3, "annealing": True}
    run = trained(datamodule, tmp_path, sigma=0.01, **arguments)
    loaded = OneStage.load_from_checkpoint(run.engine.best_model_path, map_location="cpu")
    assert {name: loaded.hparams[name] for name in arguments} == arguments
    assert loaded.model.fine_iterations == 2
    assert loaded.input_size == (32, 40)
    assert float(loaded.post_processor.image_threshold) == pytest.approx(0.01)


# Masks


def step(model: OneStage, images: ImageBatch) -> torch.Tensor:
    model.log_dict = lambda *_, **__: None
    torch.manual_seed(0)
    return model.training_step(images, 0).detach()


def test_masks_are_resized_with_their_images():
    model = tiny(image_size=(16, 24))
    masks = torch.zeros(1, 32, 48, dtype=torch.bool)
    masks[:, 8:16, 24:48] = True
    images = batch(masks, [1])
    model.pre_processor.on_train_batch_start(None, model, images, 0)
    assert images.image.shape == (1, 3, 16, 24)
    expected = torch.zeros(1, 16, 24, dtype=torch.bool)
    expected[:, 4:8, 12:] = True
    assert torch.equal(images.gt_mask.as_subclass(torch.Tensor), expected)


def test_a_defect_whose_mask_vanishes_on_resizing_is_excluded_from_training_and_named_once(caplog):
    model = tiny()
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[2, 4:6, 4:6] = True
    whole = batch(masks, [0, 1, 1])
    with caplog.at_level(logging.WARNING):
        with_it = step(model, whole)
        step(model, whole)
    assert [record.message for record in caplog.records if "no pixel" in record.message] == [
        "the mask of 1.png has no pixel left at 16 x 16, so it is not used: raise --model.image_size"
    ]
    rows = [0, 2]
    without = ImageBatch(
        image=whole.image[rows], gt_mask=whole.gt_mask[rows], gt_label=whole.gt_label[rows], image_path=["0", "2"]
    )
    assert float(with_it) == pytest.approx(float(step(model, without)), rel=1e-5)


def test_no_mask_of_kolektor_sdd_vanishes_at_half_size(data_root):
    """The thinnest of the 52 undilated masks keeps 222 pixels at 704 x 256."""
    resize = OneStage.configure_pre_processor((704, 256)).transform
    paths = sorted((data_root / "kolektor_sdd").glob("*/*_label.bmp"))
    assert len(paths) == 399
    pixels = []
    for path in paths:
        mask = Mask(read_mask(path, as_tensor=True)[None])
        if mask.any():
            pixels.append(int(resize(Image(torch.zeros(1, 3, *mask.shape[-2:])), mask)[1].sum()))
    assert len(pixels) == 52
    assert min(pixels) > 200


# Thresholds


def test_sigma_is_the_papers_threshold_on_the_sum_over_its_image():
    """Eq. 6: an image is defective if its sum is more than 100 at 1408 x 512."""
    post = tiny(sigma=SIGMA).post_processor
    sums = torch.tensor([99.0, 101.0])
    maps = (sums / (1408 * 512))[:, None, None, None].expand(2, 1, 4, 4)
    result = post(InferenceBatch(pred_score=maps.mean((1, 2, 3)), anomaly_map=maps))
    assert result.pred_label.tolist() == [False, True]
    assert not result.pred_mask.any()


def test_fixed_thresholds_survive_validation_and_do_not_need_it(datamodule, tmp_path):
    for mode in (ValSplitMode.SAME_AS_TEST, ValSplitMode.NONE):
        datamodule.base.val_split_mode = datamodule.val_split_mode = mode
        run = trained(datamodule, tmp_path / mode.value, sigma=0.02)
        post = run.model.post_processor
        assert float(post.image_threshold) == pytest.approx(0.02)
        assert float(post.pixel_threshold) == 0.5
        with torch.inference_mode():
            raw = torch.tensor([0.01, 0.03])
            result = post(InferenceBatch(pred_score=raw, anomaly_map=raw[:, None, None, None] * 20))
        assert result.pred_label.tolist() == [False, True]
        assert result.pred_mask.flatten().tolist() == [False, True]


def test_without_sigma_thresholds_come_from_labelled_validation_images(datamodule, tmp_path):
    post = trained(datamodule, tmp_path).model.post_processor
    assert post.image_threshold.isfinite()
    assert post.pixel_threshold.isfinite()


# Invalid arguments


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"image_size": (36, 40)}, "the image size is 36 x 40 pixels, but sides must be multiples of 8 .*image_size"),
        ({"defect_weight": 1.0}, r"defect_weight is 1.0; it must be in \(0, 1\)$"),
        ({"image_size": (8, 8)}, "the image size is 8 x 8 pixels, but sides must be .* at least 16: .*image_size"),
        ({"image_size": (0, 40)}, "the image size is 0 x 40 pixels"),
        ({"iterations": 0}, "iterations is 0; it must be more than 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be more than 0"),
        ({"sigma": 100.0}, r"sigma \(the paper's is 0.000139\) is 100.0; it must be in \(0, 1\)$"),
        ({"image_size": (40, 48), "backbone": BACKBONE}, "the image size is 40 x 48 pixels, .* multiples of 16 "),
        ({"width": "large"}, "width is 'large'; it must be one of"),
    ],
)
def test_an_invalid_argument_is_named(arguments, line):
    with pytest.raises(InvalidInputError, match=line):
        tiny(**arguments)


def test_an_invalid_size_of_a_custom_pre_processor_is_named(datamodule, tmp_path):
    custom = AntialiasedPreProcessor(Compose([Resize((30, 40))]))
    with pytest.raises(InvalidInputError, match="the image size is 30 x 40 pixels"):
        trained(datamodule, tmp_path, pre_processor=custom)


def test_a_path_to_weights_is_text_in_checkpoints():
    checkpoint = {"hyper_parameters": {"pre_trained": Path("weights.pth"), "iterations": 4}}
    OneStage(image_size=(32, 32), backbone=BACKBONE, pre_trained=False).on_save_checkpoint(checkpoint)
    assert checkpoint["hyper_parameters"] == {"pre_trained": "weights.pth", "iterations": 4}


# Data with what there is


def defect_folder(root: Path, name: str = "hole") -> DefectFolder:
    """Write images of 32x48 pixels with a bright defect in rows and columns 8 to 15, and their masks."""
    for number in range(6):
        pixels = np.random.default_rng(number).integers(90, 110, (32, 48), dtype=np.uint8)
        pixels[8:16, 8:16] = 255
        mask = np.zeros((32, 48), np.uint8)
        mask[8:16, 8:16] = 255
        for folder, content in ((root / name, pixels), (root / "masks" / name, mask)):
            folder.mkdir(parents=True, exist_ok=True)
            PillowImage.fromarray(content).save(folder / f"{number}.png")
    return DefectFolder(root, num_workers=0, test_ratio=0.34, train_batch_size=4)


def test_it_trains_and_tests_on_defective_images_alone_and_fits_their_background(tmp_path):
    seed_all(0)
    model = tiny(backbone=BACKBONE, pre_trained=False, image_size=(32, 48), density_weight=3.0, encoder_rate=0.0)
    run = fit(model, defect_folder(tmp_path / "data"), tmp_path / "results", {})
    run.engine.test(model, datamodule=run.datamodule)
    density = model.model.density.density
    with torch.no_grad():
        images = [item.image for item in run.datamodule.train_data]
        (features,) = model.eval().model.normal_features(torch.stack(images))
    # Of 4 x 6 positions the defect touches row 1 and column 1, and its neighbours are left out.
    kept = torch.ones(4, 6, dtype=torch.bool)
    kept[:3, :3] = False
    assert torch.allclose(density.mean.float(), features[:, kept].flatten(0, 1).mean(0), atol=1e-4)


def test_what_is_in_a_region_to_ignore_changes_no_weight(tmp_path):
    def weights(name: str, value: int) -> dict[str, torch.Tensor]:
        datamodule = defect_folder(tmp_path / name)
        ignored = np.zeros((32, 48), np.uint8)
        ignored[20:28, 24:40] = 255
        (tmp_path / name / "ignore" / "hole").mkdir(parents=True)
        for number in range(6):
            PillowImage.fromarray(ignored).save(tmp_path / name / "ignore" / "hole" / f"{number}.png")
            path = tmp_path / name / "masks" / "hole" / f"{number}.png"
            mask = np.array(PillowImage.open(path))
            mask[22:26, 26:36] = value
            PillowImage.fromarray(mask).save(path)
        seed_all(0)
        model = tiny(image_size=(32, 48), augment=False, norm="instance")
        return fit(model, datamodule, tmp_path / f"{name} results", {}).model.state_dict()

    first, second = weights("marked", 255), weights("unmarked", 0)
    compared = [name for name in first if name.startswith("model.")]
    assert len(compared) > 10
    assert all(torch.equal(first[name], second[name]) for name in compared)
