"""Images of different sizes in one batch: each gives what it gives alone, through every door, and so does its mask."""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule, Folder, ImageBatch, PredictDataset
from anomalib.engine import Engine
from anomalib.models import Padim
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

from anomalib_defect_plugins.benchmark.recorder import Recorder
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data import DefectFolder, WithDefects
from anomalib_defect_plugins.data.dataclasses import DefectBatch
from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.models.sidn import Sidn

SIDE = 32

SIZES = ((64, 64), (150, 24), (40, 56), (33, 33))
"""Heights and widths."""

PLAIN: dict[str, Any] = {"image_size": (SIDE, SIDE), "evaluator": False, "visualizer": False}

MODELS: dict[str, Callable[..., AnomalibModule]] = {
    "HtpGan": partial(HtpGan, num_scales=2, min_size=16, width=2, iterations_per_scale=2, **PLAIN),
    "IsuGan": partial(IsuGan, backbone=None, width=4, residual_blocks=1, involution=False, iterations=2, **PLAIN),
    "OneStage": partial(OneStage, width="small", iterations=2, **PLAIN),
    "Sidn": partial(Sidn, backbone=None, channels=4, clusters=3, iterations=2, **PLAIN),
    "DefectGan": partial(DefectGan, channels=4, residual_blocks=1, batch_size=2, iterations=2, **PLAIN),
    "CutPaste": partial(CutPaste, backbone="test_resnet.r160_in1k", pre_trained=False, iterations=2, **PLAIN),
    "Padim": lambda: Padim(
        "resnet18",
        ["layer1"],
        pre_trained=False,
        n_features=4,
        pre_processor=Padim.configure_pre_processor((SIDE, SIDE)),
        evaluator=False,
        visualizer=False,
    ),
}

SETTINGS: dict[str, Any] = {
    "num_workers": 0,
    "train_batch_size": 4,
    "eval_batch_size": 4,
    "val_split_mode": "from_test",
}


def defect_folder(root: Path) -> DefectFolder:
    return DefectFolder(root=root, **SETTINGS)


def folder(root: Path) -> Folder:
    folders = {"normal_dir": "good", "abnormal_dir": "bad", "mask_dir": "masks/bad"}
    return Folder(name="any", root=root, **folders, **SETTINGS)


DATA: dict[str, Callable[[Path], AnomalibDataModule]] = {
    "DefectFolder": defect_folder,
    "WithDefects": lambda root: WithDefects(defect_folder(root), real=2),
    "WithDefects of Folder": lambda root: WithDefects(folder(root), real=2),
    "Folder": folder,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normal and defective images of four sizes; defects are lines of 3 pixels."""
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for folder in ("good", "bad", "masks/bad"):
        (root / folder).mkdir(parents=True)
    for number, (height, width) in enumerate(SIZES * 4):
        for folder in ("good", "bad"):
            image, mask = rng.normal(128, 20, (height, width)), np.zeros((height, width), bool)
            mask[height // 4 : 3 * height // 4, width // 2 : width // 2 + 3] = folder == "bad"
            image[mask] = 0
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / folder / f"{number:02}.png")
            if folder == "bad":
                Image.fromarray(mask).save(root / "masks" / "bad" / f"{number:02}.png")
    return root


class Seen(Callback):
    """Records what the model receives and predicts.

    Attributes:
        images: Pre-processed image and mask of each path.
        scores: Score of each path.
        sizes: Largest number of sizes of the files of a batch.
    """

    def __init__(self) -> None:
        self.images: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self.scores: dict[str, float] = {}
        self.sizes = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Record a batch."""
        masks = [None] * len(batch.image) if batch.gt_mask is None else batch.gt_mask
        self.images |= dict(zip(batch.image_path, zip(batch.image, masks, strict=True), strict=True))
        self.sizes = max(self.sizes, len({Image.open(path).size for path in batch.image_path}))
        if not trainer.training:
            self.scores |= dict(zip(batch.image_path, outputs.pred_score.flatten().tolist(), strict=True))

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = on_train_batch_end


def engine(tmp_path: Path, *callbacks: Callback, **arguments: Any) -> Engine:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "barebones": False}
    return Engine([*callbacks], default_root_dir=tmp_path, accelerator="cpu", devices=1, **quiet | arguments)


def set_up(datamodule: AnomalibDataModule) -> AnomalibDataModule:
    datamodule.setup()
    return datamodule


def check_alone(seen: Seen, model: AnomalibModule, datamodule: AnomalibDataModule, tolerance: float = 1e-5) -> None:
    """Check that every image, mask and score is that of a batch of one."""
    assert seen.images
    items = {
        item.image_path: item
        for data in (datamodule.train_data, datamodule.val_data, datamodule.test_data)
        for item in (data[index] for index in range(len(data)))
    }
    model.eval()
    for path, (image, mask) in seen.images.items():
        alone = DefectBatch.collate([items[path]])
        alone.image, alone.gt_mask = model.pre_processor.transform(alone.image, alone.gt_mask)
        assert torch.allclose(image, alone.image[0], atol=1e-6), path
        assert mask is None or torch.equal(mask, alone.gt_mask[0]), path
        if path in seen.scores:
            with torch.no_grad():
                score = model.model(alone.image.as_subclass(torch.Tensor)).pred_score
            assert seen.scores[path] == pytest.approx(score.item(), abs=tolerance, rel=1e-5), path


def evaluate(stage: str, door: str, run: Engine, model: AnomalibModule, datamodule: AnomalibDataModule) -> None:
    """Run a stage on the data module itself, on its loader, or on a loader of its data set."""
    data: dict[str, Any] = {"datamodule": datamodule}
    if door != "datamodule":
        datamodule.setup()
        loader = getattr(datamodule, f"{stage.replace('validate', 'val')}_dataloader")()
        if door == "loader of the data set":
            loader = DataLoader(loader.dataset, batch_size=5, collate_fn=loader.dataset.collate_fn)
        data = {"dataloaders": loader}
    getattr(run, stage)(model, **data)


STAGES = ("validate", "test", "predict")

DOORS = ("datamodule", "loader", "loader of the data set")

CASES = [(name, DOORS[j], STAGES[(i + j) % 3]) for i, name in enumerate(DATA) for j in range(3)]
"""Each data module and each door with each stage."""


@pytest.mark.parametrize(("data", "door", "stage"), CASES)
def test_each_image_gives_what_it_gives_alone_through_every_door(root, tmp_path, data, door, stage):
    seen, model = Seen(), MODELS["Sidn"]()
    evaluate(stage, door, engine(tmp_path, seen), model, DATA[data](root))
    assert seen.sizes > 1
    check_alone(seen, model, set_up(DATA[data](root)))


# Training


class Loaders(Callback):
    """Records the training loader as its worker processes get it."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Record what is sent to a spawned worker process."""
        loader = trainer.train_dataloader
        self.sent = pickle.dumps((loader.dataset, loader.collate_fn, loader.worker_init_fn, loader.generator))


@pytest.fixture(scope="module", params=MODELS)
def trained(request, root, tmp_path_factory) -> tuple[AnomalibModule, Seen, Loaders]:
    """A model trained on images of different sizes, and what it has received."""
    model, seen, loaders = MODELS[request.param](), Seen(), Loaders()
    engine(tmp_path_factory.mktemp("run"), seen, loaders).fit(model, datamodule=DATA["WithDefects"](root))
    seen.scores.clear()  # of the weights of that moment
    return model, seen, loaders


def test_every_model_trains_on_images_as_they_are_alone(root, trained):
    model, seen, _ = trained
    check_alone(seen, model, set_up(DATA["WithDefects"](root)))


def test_every_trained_model_gives_an_image_the_score_that_it_gives_alone(root, tmp_path, trained):
    model, seen = trained[0], Seen()
    evaluate("predict", "loader", engine(tmp_path, seen), model, DATA["WithDefects"](root))
    assert seen.sizes > 1
    # Rounding of similarities, differences of nearly equal numbers, depends on the number of images in a batch.
    check_alone(seen, model, set_up(DATA["WithDefects"](root)), 4e-5 if isinstance(model, IsuGan) else 1e-5)


def test_what_the_training_of_every_model_sends_to_spawned_workers_can_be_pickled(trained):
    dataset, collate, *_ = pickle.loads(trained[2].sent)
    assert isinstance(dataset, Dataset | list)
    assert callable(collate)


@pytest.mark.parametrize("data", ["DefectFolder", "Folder"])
def test_training_and_validation_loaders_may_be_passed(root, tmp_path, data):
    seen, datamodule, model = Seen(), set_up(DATA[data](root)), MODELS["Sidn"]()
    loaders = datamodule.train_dataloader(), datamodule.val_dataloader()
    engine(tmp_path, seen, max_epochs=1).fit(model, *loaders)
    assert seen.sizes > 1
    seen.scores.clear()
    check_alone(seen, model, datamodule)
    assert len(seen.images) > len(datamodule.train_data)


# Loaders


@pytest.mark.parametrize("workers", [0, 1])
def test_images_without_labels_give_what_they_give_alone(root, tmp_path, workers):
    seen, model, dataset = Seen(), MODELS["Sidn"](), PredictDataset(root / "bad")
    many = {"batch_size": 5, "collate_fn": dataset.collate_fn, "num_workers": workers}
    loaders = [
        DataLoader(dataset, persistent_workers=workers > 0, **many),
        DataLoader(dataset, **many | {"batch_size": 3}),
    ]
    engine(tmp_path, seen).predict(model, loaders)
    assert seen.sizes > 1
    assert len(seen.images) == 16
    check_alone(seen, model, set_up(DATA["DefectFolder"](root)))


def test_loaders_and_trainer_are_as_before_after_a_run(root, tmp_path):
    loader, run = set_up(DATA["Folder"](root)).test_dataloader(), engine(tmp_path)
    run.predict(MODELS["Sidn"](), loader)
    assert loader.collate_fn == ImageBatch.collate
    assert "process_dataloader" not in vars(run.trainer.strategy)


def test_the_trainer_is_as_before_after_a_run_that_fails(root, tmp_path):
    run = engine(tmp_path)
    with pytest.raises(ConfigurationError):
        run.predict(MODELS["Sidn"](pre_processor=False), set_up(DATA["Folder"](root)).test_dataloader())
    assert "process_dataloader" not in vars(run.trainer.strategy)


# Pre-processors


@pytest.mark.parametrize("door", ["datamodule", "loader"])
@pytest.mark.parametrize(("name", "data"), [("Sidn", "Folder"), ("Sidn", "WithDefects"), ("Padim", "DefectFolder")])
def test_sizes_may_become_equal_in_several_steps(root, tmp_path, trained_padim, name, data, door):
    pre_processor = PreProcessor(Compose([Resize(SIDE + 8, antialias=True), CenterCrop(SIDE)]))
    seen, model = Seen(), trained_padim() if name == "Padim" else MODELS[name](pre_processor=pre_processor)
    model.pre_processor = pre_processor
    evaluate("predict", door, engine(tmp_path, seen), model, DATA[data](root))
    assert seen.sizes > 1
    check_alone(seen, model, set_up(DATA[data](root)))


@pytest.fixture
def trained_padim(root, tmp_path) -> Callable[[], AnomalibModule]:
    def fit() -> AnomalibModule:
        model = MODELS["Padim"]()
        engine(tmp_path / "padim").fit(model, datamodule=DATA["DefectFolder"](root))
        return model

    return fit


@pytest.mark.parametrize("transform", [None, Resize(SIDE)], ids=["none", "shorter side"])
@pytest.mark.parametrize(("name", "data"), [("Sidn", "Folder"), ("Sidn", "WithDefects"), ("Padim", "DefectFolder")])
def test_images_that_no_pre_processor_makes_equal_are_one_line(root, tmp_path, name, data, transform):
    model = MODELS[name]()
    model.pre_processor = PreProcessor(transform)
    with pytest.raises(ConfigurationError, match=f"pre-processor of {name} does not resize them to one size"):
        engine(tmp_path).test(model, datamodule=DATA[data](root))


def test_the_benchmark_records_masks_of_the_size_of_the_maps(root, tmp_path):
    recorder, model = Recorder(tmp_path), MODELS["Sidn"]()
    evaluate("test", "loader", engine(tmp_path, recorder), model, DATA["Folder"](root))
    assert recorder.image_size == (SIDE, SIDE)
    assert {image.shape for image in recorder.predictions} == {(SIDE, SIDE)}


# Arguments of loaders


@pytest.mark.parametrize(
    ("argument", "stage"), [("train_batch_size", "fit"), ("eval_batch_size", "test"), ("num_workers", "predict")]
)
def test_our_models_refuse_invalid_loader_arguments_of_any_data_module(root, tmp_path, argument, stage):
    datamodule = DATA["Folder"](root)
    setattr(datamodule, argument, -1)
    with pytest.raises(InvalidInputError, match=f"{argument} is -1; it must be a whole number of at least"):
        getattr(engine(tmp_path), stage)(MODELS["Sidn"](), datamodule=datamodule)


@pytest.mark.parametrize("name", ["OneStage", "IsuGan"])
def test_a_batch_may_be_larger_than_the_training_set(root, tmp_path, name):
    datamodule, seen = DATA["WithDefects"](root), Seen()
    datamodule.train_batch_size = 1000
    model = MODELS[name]()
    engine(tmp_path, seen).fit(model, datamodule=datamodule)
    assert model.global_step >= 2
