"""Model contract of both localisers and of the null model."""

from anomalib.models import AnomalibModule

from anomalib_defect_plugins.models.cutpaste import CutPaste
from anomalib_defect_plugins.testing import ModelContract, TrainingContract

TINY = "test_resnet.r160_in1k"


class TestCutPasteDense(TrainingContract):
    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return CutPaste(image_size=image_size, backbone=TINY, pre_trained=False, iterations=4)


class TestCutPastePatch(TrainingContract):
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


class TestCutPasteNullModel(ModelContract):
    test_quantised_graph_gives_each_image_a_finite_score_and_map = None  # the graph is that of TestCutPaste

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        return CutPaste(image_size=image_size, backbone=TINY, pre_trained=False, iterations=0)
