"""Model contract of Defect-GAN, trained with two defective images without masks."""

from pathlib import Path

from anomalib.data import AnomalibDataModule
from anomalib.models import AnomalibModule

from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.testing import TrainingContract, folder_datamodule, write_folder_data


class TestDefectGan(TrainingContract):
    other_image_sizes = ((48, 56),)

    def make_model(self, image_size: tuple[int, int]) -> AnomalibModule:
        settings = {"channels": 4, "residual_blocks": 1, "iterations": 4, "batch_size": 4, "critic_updates": 2}
        return DefectGan(image_size, **settings)

    def make_datamodule(self, root: Path) -> AnomalibDataModule:
        write_folder_data(root)
        return WithDefects(folder_datamodule(root), real=2, masks=False)

    def test_the_exported_graph_holds_one_generator(self, trained, exported) -> None:
        weights = sum(weight.numel() for weight in trained.model.model.parameters())
        assert exported.with_suffix(".bin").stat().st_size < 5 * weights
