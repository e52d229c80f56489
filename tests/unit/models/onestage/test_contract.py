"""Model contract of OneStage, trained on spots with masks."""

from pathlib import Path

import pytest
from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule

from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.onestage import OneStage
from anomalib_defect_plugins.testing import TrainingContract, folder_datamodule, write_folder_data


class TestOneStage(TrainingContract):
    image_size = (128, 64)
    other_image_sizes = ((48, 64),)

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        # With a high prior, five steps suffice for maps that separate the images.
        return OneStage(image_size, backbone="test_efficientnet", iterations=5, learning_rate=1e-2, prior=0.3)

    def make_datamodule(self, root: Path) -> AnomalibDataModule:
        write_folder_data(root)
        return WithDefects(folder_datamodule(root), real=2)


@pytest.mark.long
class TestPaper(TestOneStage):
    other_image_sizes = ((40, 48),)
    # The variants of this network are exported in test_lightning_model.py.
    test_quantised_graph_gives_each_image_a_finite_score_and_map = None
    test_openvino_graph_agrees_with_pytorch = None
    test_openvino_inferencer_predicts_from_an_image_file = None
    test_onnx_graph_of_fixed_size_agrees_with_pytorch = None

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return OneStage(
            image_size, width="small", backbone=None, score="mean", iterations=5, learning_rate=1e-2, prior=0.3
        )
