"""Model contract of ISU-GAN, trained with two defective images without masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule

from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.isugan import IsuGan
from anomalib_defect_plugins.testing import TrainingContract, folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import run_openvino

SETTINGS: dict[str, Any] = {"width": 8, "residual_blocks": 1, "iterations": 4, "batch_size": 4, "pool_size": 6}


class TestIsuGan(TrainingContract):
    other_image_sizes = ((42, 51),)

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        # With repairs in the map, the graph has every part.
        encoder: Any = {"backbone": "test_resnet.r160_in1k", "pre_trained": False, "repair_weight": 0.5}
        return IsuGan(image_size, **encoder, **SETTINGS)

    def make_datamodule(self, root: Path) -> AnomalibDataModule:
        write_folder_data(root)
        return WithDefects(folder_datamodule(root), real=2, masks=False)

    def test_prediction_returns_the_repaired_images(self, trained) -> None:
        for batch in trained.engine.predict(trained.model, datamodule=trained.datamodule):
            assert batch.repaired.shape == (len(batch), 1, *self.image_size)
            assert 0 <= batch.repaired.min() < batch.repaired.max() <= 1
            assert [item.repaired.shape for item in batch] == [(1, *self.image_size)] * len(batch)

    def test_the_exported_graph_returns_pytorchs_masks_which_are_empty_in_images_predicted_normal(
        self, trained, exported
    ) -> None:
        images = trained.images()
        graph = run_openvino(exported, images)
        with torch.inference_mode():
            expected = trained.model.eval()(images)
        # anomalib's threshold equals the score of an image, which rounding may move to either side.
        unambiguous = (expected.pred_score - 0.5).abs().numpy() > 1e-3
        assert unambiguous.sum() > 2
        assert (graph["pred_mask"] != expected.pred_mask.numpy())[unambiguous].mean() < 0.001
        assert np.array_equal(graph["pred_mask"].any((1, 2, 3)), graph["pred_label"].ravel())


@pytest.mark.long
class TestPaper(TestIsuGan):
    # Its graph is a part of the one with a backbone.
    test_quantised_graph_gives_each_image_a_finite_score_and_map = None
    test_openvino_graph_agrees_with_pytorch = None
    test_openvino_inferencer_predicts_from_an_image_file = None
    test_onnx_graph_of_fixed_size_agrees_with_pytorch = None

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return IsuGan(image_size, backbone=None, layers=False, paired_weight=0, **SETTINGS)

    def test_the_exported_graph_holds_one_generator(self, trained, exported) -> None:
        weights = sum(weight.numel() for weight in trained.model.model.parameters())
        assert 4 * weights < exported.with_suffix(".bin").stat().st_size < 5 * weights
