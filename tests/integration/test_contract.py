"""The contract for models and data modules of this package, and for a model of anomalib."""

from pathlib import Path
from typing import Any

import pytest
from anomalib.models import AnomalibModule, Padim

from anomalib_defect_plugins.models.htpgan import HtpGan
from anomalib_defect_plugins.models.sidn import Sidn
from anomalib_defect_plugins.testing import DataModuleContract, ModelContract, TrainingContract


class TestPadim(ModelContract):
    """A model of anomalib with random weights: the contract checks conventions of anomalib."""

    # Its exports are anomalib's own; one shows that the contract can be kept.
    test_quantised_graph_gives_each_image_a_finite_score_and_map = None
    test_openvino_inferencer_predicts_from_an_image_file = None
    test_onnx_graph_of_fixed_size_agrees_with_pytorch = None

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return Padim(
            layers=["layer1"],
            n_features=16,
            pre_trained=False,
            pre_processor=Padim.configure_pre_processor(image_size),
        )


class TestHtpGan(TrainingContract):
    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return HtpGan(image_size=image_size, num_scales=2, min_size=32, width=4, iterations_per_scale=3)


class TestSidn(TrainingContract):
    other_image_sizes = ((80, 96),)

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return Sidn(image_size, "test_resnet.r160_in1k", channels=4, clusters=3, iterations=4)


@pytest.mark.long
class TestPaperSidn(TestSidn):
    # The graph is that of TestSidn without its encoder.
    test_quantised_graph_gives_each_image_a_finite_score_and_map = None
    test_openvino_inferencer_predicts_from_an_image_file = None
    test_onnx_graph_of_fixed_size_agrees_with_pytorch = None

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return Sidn(image_size, None, channels=4, clusters=3, iterations=4, defect_content="noise")


class TestTextureDefects(DataModuleContract):
    def config(self, root: Path) -> dict[str, Any]:
        arguments = {"root": str(root), "image_size": 64, "eval_batch_size": 8, "train_batch_size": 8}
        return {"class_path": "anomalib_defect_plugins.data.TextureDefects", "init_args": arguments}
