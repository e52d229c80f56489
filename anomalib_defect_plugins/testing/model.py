"""The contract of models: training, test and prediction through anomalib's engine, checkpoints and exported graphs."""
# ruff: noqa: S101, D102 - these classes consist of asserts, and a test's name is its description

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from anomalib.data import AnomalibDataModule, ImageBatch, InferenceBatch
from anomalib.deploy import OpenVINOInferencer
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Callback
from PIL import Image
from torch import Tensor

from anomalib_defect_plugins.core.errors import ConfigurationError
from anomalib_defect_plugins.core.openvino_core import openvino_core
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.inference.openvino import FULL_PRECISION
from anomalib_defect_plugins.models.components.checked_export import quantisation
from anomalib_defect_plugins.testing.data import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import (
    Run,
    differences,
    exported_path,
    fit,
    run_openvino,
    seed_all,
    unshuffled,
)

EXPORT_TOLERANCE = 1e-3


class ModelContract:
    """Tests that every model must pass, with or without an optimiser.

    Attributes:
        image_size: Height and width in pixels at which most tests run the model.
        other_image_sizes: Further sizes at which the model must train and predict; empty if it supports one size only.
        optimises: Whether the model has an optimiser; ``TrainingContract`` sets it.
    """

    optimises: ClassVar[bool] = False
    image_size: ClassVar[tuple[int, int]] = (64, 64)
    other_image_sizes: ClassVar[Sequence[tuple[int, int]]] = ((80, 96),)

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        """Return a new model with the smallest useful settings and random weights.

        Args:
            image_size: Height and width in pixels that the model's pre-processor resizes images to.
        """
        raise NotImplementedError

    def make_datamodule(self, root: Path) -> AnomalibDataModule:
        """Return a data module; the default one trains on normal images and has defects in its test images only.

        Args:
            root: Empty folder for the data.
        """
        write_folder_data(root)
        return folder_datamodule(root)

    def trainer_arguments(self) -> dict[str, Any]:
        """Return trainer arguments; the model's ``trainer_arguments`` and ``trainer_defaults`` take precedence."""
        return {"max_epochs": 2}

    def fit(
        self,
        folder: Path,
        image_size: tuple[int, int] | None = None,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        shuffle: bool = True,
        ckpt_path: Path | None = None,
        precision: str = "32-true",
    ) -> Run:
        """Train a new model.

        Args:
            folder: Empty folder for data and results.
            image_size: Height and width in pixels; defaults to ``image_size`` of the class.
            seed: Random seed.
            callbacks: Further callbacks of the trainer.
            shuffle: Whether to shuffle the training images.
            ckpt_path: Checkpoint to resume from.
            precision: ``precision`` of the trainer.
        """
        seed_all(seed)
        model = self.make_model(image_size or self.image_size)
        datamodule = self.make_datamodule(folder / "data")
        datamodule = datamodule if shuffle else unshuffled(datamodule)
        arguments = {**self._arguments(model), "precision": precision}
        return fit(model, datamodule, folder / "results", arguments, callbacks, ckpt_path)

    def _arguments(self, model: AnomalibModule) -> dict[str, Any]:
        """Return the trainer arguments that the model leaves open."""
        own = getattr(model, "trainer_defaults", {})
        return {name: value for name, value in self.trainer_arguments().items() if name not in own}

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, tmp_path_factory: pytest.TempPathFactory) -> Run:
        """Trained model that the tests of a class share and do not modify."""
        return cls().fit(tmp_path_factory.mktemp("trained"))

    @pytest.fixture(scope="class")
    @classmethod
    def metrics(cls, trained: Run) -> dict[str, float]:
        """Test metrics of the trained model."""
        return dict(trained.engine.test(trained.model, datamodule=trained.datamodule, verbose=False)[0])

    @pytest.fixture(scope="class")
    @classmethod
    def exported(cls, trained: Run) -> Path:
        """OpenVINO graph for images of any size, as ``anomalib export`` writes it by default."""
        return exported_path(trained, "openvino")

    def test_it_derives_directly_from_anomalib_module(self, trained: Run) -> None:
        assert AnomalibModule in type(trained.model).__bases__, (
            "anomalib's get_model and list_models find direct subclasses only"
        )

    def test_it_stops_before_training_without_the_defects_it_needs(self, tmp_path: Path) -> None:
        model = self.make_model(self.image_size)
        if getattr(model, "supervision", None) in {Supervision.IMAGE_LABELS, Supervision.PIXEL_MASKS}:
            write_folder_data(tmp_path)
            datamodule = folder_datamodule(tmp_path)
            with pytest.raises(ConfigurationError, match=r"needs .* in the training set; .*WithDefects"):
                fit(model, datamodule, tmp_path / "results", self._arguments(model))

    def test_a_model_with_an_optimiser_uses_the_training_contract(self, trained: Run) -> None:
        assert trained.watch.optimises == self.optimises, (
            f"optimises is {self.optimises}: models with an optimiser use TrainingContract, others ModelContract"
        )

    def test_forward_gives_each_image_a_finite_score_and_map(self, trained: Run) -> None:
        images = trained.images()
        _check_output(_predict(trained.model, images), len(images), self.image_size)

    def test_forward_distinguishes_images(self, trained: Run) -> None:
        maps = cast(Tensor, _predict(trained.model, trained.images()).anomaly_map)
        assert (maps.amax(0) - maps.amin(0)).max() > 1e-4, "all images have the same anomaly map"

    def test_result_of_an_image_does_not_depend_on_the_others_of_its_batch(self, trained: Run) -> None:
        images = trained.images()
        together = _predict(trained.model, images)
        alone = [_predict(trained.model, image[None]) for image in images]
        for name in ("anomaly_map", "pred_score"):
            expected = torch.cat([getattr(output, name) for output in alone])
            assert torch.allclose(getattr(together, name), expected, atol=1e-4), f"{name} depends on the batch"

    def test_it_trains_and_predicts_at_other_image_sizes(self, tmp_path: Path) -> None:
        for height, width in self.other_image_sizes:
            run = self.fit(tmp_path / f"{height}x{width}", (height, width))
            _check_output(_predict(run.model, run.images()), len(run.datamodule.test_data), (height, width))

    def test_testing_reports_finite_metrics(self, metrics: dict[str, float]) -> None:
        assert metrics, "the model's evaluator reports nothing"
        assert all(math.isfinite(value) for value in metrics.values()), metrics

    def test_testing_writes_a_picture_of_every_test_image(self, trained: Run, metrics: dict[str, float]) -> None:
        del metrics  # Testing is what writes them.
        pictures = list((trained.folder / "images").rglob("*.png"))
        assert len(pictures) == len(trained.datamodule.test_data)
        for picture in pictures:
            with Image.open(picture) as image:
                image.load()

    def test_prediction_fills_the_batches_of_all_test_images(self, trained: Run) -> None:
        batches = cast(list[Any], trained.engine.predict(trained.model, datamodule=trained.datamodule))
        assert sum(len(batch) for batch in batches) == len(trained.datamodule.test_data)
        for batch in batches:
            assert isinstance(batch, ImageBatch)
            _check_output(batch, len(batch), self.image_size)

    def test_checkpoint_loads_without_running_code_in_it(self, trained: Run) -> None:
        checkpoint = torch.load(trained.checkpoint, weights_only=True)
        assert not differences(checkpoint["state_dict"], trained.model.state_dict())

    def test_model_from_a_checkpoint_predicts_the_same(self, trained: Run) -> None:
        images = trained.images()
        loaded = type(trained.model).load_from_checkpoint(trained.checkpoint, map_location="cpu")
        assert not differences(loaded.state_dict(), trained.model.state_dict())
        expected, result = _predict(trained.model, images), _predict(loaded, images)
        # Equal weights may differ in memory layout, in which case kernels sum in another order.
        for name in ("anomaly_map", "pred_score"):
            assert torch.allclose(getattr(result, name), getattr(expected, name), atol=1e-5), f"{name} has changed"

    def test_same_seed_trains_the_same_weights(self, trained: Run, tmp_path: Path) -> None:
        again = self.fit(tmp_path)
        assert not differences(again.model.state_dict(), trained.model.state_dict()), "a second run has other weights"

    def test_onnx_graph_of_fixed_size_agrees_with_pytorch(self, trained: Run) -> None:
        images = torch.nn.functional.interpolate(trained.images(), self.image_size)
        path = exported_path(trained, "onnx", input_size=self.image_size)
        _check_agreement(run_openvino(path, images), _predict(trained.model, images))

    def test_openvino_graph_agrees_with_pytorch(self, trained: Run, exported: Path) -> None:
        images = trained.images()
        _check_agreement(run_openvino(exported, images), _predict(trained.model, images))

    def test_openvino_inferencer_predicts_from_an_image_file(
        self, trained: Run, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)  # the inferencer writes its cache to the working folder
        inferencer = OpenVINOInferencer(exported, device="CPU", config=FULL_PRECISION)
        result: Any = inferencer.predict(trained.datamodule.test_data.samples.image_path.iloc[0])
        expected = _predict(trained.model, trained.images()[:1])
        _check_agreement({"pred_score": result.pred_score, "anomaly_map": result.anomaly_map}, expected)

    def test_quantised_graph_gives_each_image_a_finite_score_and_map(self, trained: Run, exported: Path) -> None:
        nncf = pytest.importorskip("nncf", reason="8-bit quantisation needs nncf")
        images = trained.images()
        graph = openvino_core().read_model(exported)
        graph.reshape({0: list(images.shape)})  # not any number, see of_batch
        graph = nncf.quantize(graph, nncf.Dataset([images.numpy()]), **quantisation(graph))
        result = {name: torch.from_numpy(value) for name, value in run_openvino(graph, images).items()}
        _check_output(InferenceBatch(**result), len(images), self.image_size)


def _predict(model: AnomalibModule, images: Tensor) -> InferenceBatch:
    """Predict images, shape (B, C, H, W), float in [0, 1], in evaluation mode."""
    with torch.inference_mode():
        return cast(InferenceBatch, model.eval()(images))


def _check_output(output: InferenceBatch | ImageBatch, count: int, image_size: tuple[int, int]) -> None:
    """Check shapes and that scores and maps are finite. Masks and labels are optional."""
    assert output.pred_score is not None, "no pred_score"
    assert output.anomaly_map is not None, "no anomaly_map"
    score, anomaly_map = tuple(output.pred_score.shape), tuple(output.anomaly_map.shape)
    assert score in {(count,), (count, 1)}, f"pred_score has the shape {score} for {count} images"
    assert anomaly_map in {(count, *image_size), (count, 1, *image_size)}, f"anomaly_map has the shape {anomaly_map}"
    assert output.pred_score.isfinite().all(), "pred_score is not finite"
    assert output.anomaly_map.isfinite().all(), "anomaly_map is not finite"
    if output.pred_mask is not None:
        assert output.pred_mask.shape == output.anomaly_map.shape
    if output.pred_label is not None:
        assert output.pred_label.numel() == count


def _check_agreement(graph: dict[str, npt.NDArray[np.float32]], expected: InferenceBatch) -> None:
    """Check that the scores and maps of an exported graph equal those of PyTorch, and so do labels of clear scores."""
    for name in ("pred_score", "anomaly_map"):
        reference = getattr(expected, name).numpy()
        difference = np.abs(graph[name].reshape(reference.shape) - reference).max()
        assert difference < EXPORT_TOLERANCE, f"{name} of the exported graph is off by {difference:.2g}"
    if expected.pred_label is not None and "pred_label" in graph:
        differs = graph["pred_label"].ravel().astype(bool) != expected.pred_label.numpy().ravel()
        clear = np.abs(cast(Tensor, expected.pred_score).numpy().ravel() - 0.5) > EXPORT_TOLERANCE
        assert not (differs & clear).any(), "pred_label of the exported graph is another one"
