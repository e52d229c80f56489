"""Model contract of both localisers, fine-tuned and from random weights, and of the null model."""

import pytest
from anomalib.models import AnomalibModule

from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.testing import ModelContract, TrainingContract

TINY = "test_resnet.r160_in1k"


class TestCutPasteDense(TrainingContract):
    """Fine-tuned: the last stage of the backbone starts in the third of four steps, after the resumed checkpoint."""

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return CutPaste(image_size=image_size, backbone=TINY, iterations=4, freeze=0.75)


@pytest.mark.long
class TestCutPastePatch(TrainingContract):
    # The windows of the graph of any size are those of one of fixed size.
    test_onnx_graph_of_fixed_size_agrees_with_pytorch = None
    test_quantised_graph_gives_each_image_a_finite_score_and_map = None

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return CutPaste(
            image_size=image_size,
            backbone=TINY,
            pre_trained=False,
            localization="patch",
            window=32,
            stride=8,
            iterations=4,
        )


@pytest.mark.long
class TestCutPasteNullModel(ModelContract):
    # The graph is that of TestCutPasteDense.
    test_openvino_graph_agrees_with_pytorch = None
    test_openvino_inferencer_predicts_from_an_image_file = None
    test_onnx_graph_of_fixed_size_agrees_with_pytorch = None
    test_quantised_graph_gives_each_image_a_finite_score_and_map = None

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return CutPaste(image_size=image_size, backbone=TINY, pre_trained=False, iterations=0)
