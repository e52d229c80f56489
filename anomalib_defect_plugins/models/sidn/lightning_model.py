"""SIDN in Lightning: learns on normal images with artificial defects, made anew at each step.

Paper: A semantic information decomposition network for accurate segmentation of texture defects, IEEE Transactions on
Industrial Informatics 2023, https://doi.org/10.1109/TII.2022.3217751.
"""

import torch
from anomalib.data import Batch
from anomalib.data.utils import LabelName
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam

from anomalib_defect_plugins.core.checks import check_one_of, check_positive
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.layers import NORMS
from anomalib_defect_plugins.models.components.augmentation import Augmentation
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.sidn.loss import center_loss, clustering_loss, segmentation_loss, similarity_loss
from anomalib_defect_plugins.models.sidn.torch_model import SidnModel, SidnOutput
from anomalib_defect_plugins.plugins.instantiate import build
from anomalib_defect_plugins.post_processing import OpeningPostProcessor


class Sidn(DefectModel, IterativeTraining, AnomalibModule):
    """Semantic information decomposition network: two branches, one that knows texture and one that knows defects.

    Args:
        image_size: Height and width that images are resized to, in pixels, multiples of 16. Images are made grey.
        channels: Channels C of the first layer.
        clusters: Cluster centres K of each branch.
        clustering: Whether features are drawn to cluster centres (L_kl); without, L_td and the GSRM have nothing to go
            by and are left out too (method A of the paper's Table II).
        center_separation: Whether the centres of the branches are kept apart (L_td; without: method B).
        gsrm: Whether the global semantic relation module is used (without: method C; with all: method D).
        norm: Layers that normalise, ``group``, ``instance`` or ``batch``; the paper does not say which. Batch norm is
            faster once exported, but its statistics fit the training images only (measured in the README).
        defect_content: Generator of the artificial defects: a registered name, an instance, or a mapping with
            ``class_path`` and ``init_args``. ``noise`` is the paper's; what a network learns of it is noise, and not
            what is unlike its surroundings (measured in the README).
        defect_share: Share of the images of a step that defects are drawn on, in (0, 1]. A network that never sees an
            image without one looks for the oddest part of each.
        iterations: Training steps.
        crop_size: Side of the random crop of each training image that a step sees, in pixels, a multiple of 16;
            ``None`` is the whole image. Test images are never cropped.
        augment: Whether training images are turned, scaled and lit at random; they are mirrored in any case. Switch it
            off where a defect may be just that, such as another brightness.
        learning_rate: Learning rate of Adam; the paper's is 1e-4.
        annealing: Whether the learning rate falls to 0 along a cosine; the paper's does not.
        texture_weight: Weight of the texture's pixels in the segmentation loss, lambda_1.
        similarity_weight: Weight of L_z, lambda_2.
        clustering_weight: Weight of L_kl, lambda_3.
        center_weight: Weight of L_td, lambda_4.
        fusion_weight: Weight of the defect branch in the fusion, lambda_f, in [0, 1].
        median_size: Side of the median filter in pixels, odd; 1 filters nothing.
        score_share: Share of the pixels of an anomaly map, the highest ones, whose mean is the score; in (0, 1].
        mask_opening: Side of the square that a speck of a predicted mask must hold to stay, in pixels; 1 leaves masks
            as they are. Exported graphs never do it.
        pre_processor: As in anomalib.
        post_processor: As in anomalib; instead of one with ``mask_opening`` if given.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Raises:
        InvalidInputError: An argument that cannot be.
    """

    supervision = Supervision.NORMAL
    paper = "https://doi.org/10.1109/TII.2022.3217751"
    grey = True

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        channels: int = 16,
        clusters: int = 12,
        clustering: bool = True,
        center_separation: bool = True,
        gsrm: bool = True,
        norm: str = "group",
        defect_content: DefectGenerator | str = "perturb",
        defect_share: float = 0.5,
        iterations: int = 1000,
        crop_size: int | None = None,
        augment: bool = True,
        learning_rate: float = 2e-4,
        annealing: bool = True,
        texture_weight: float = 0.1,
        similarity_weight: float = 0.01,
        clustering_weight: float = 0.01,
        center_weight: float = 0.01,
        fusion_weight: float = 0.5,
        median_size: int = 3,
        score_share: float = 0.05,
        mask_opening: int = 1,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        image_size = tuple(image_size)
        check_positive(
            channels=channels,
            clusters=clusters,
            iterations=iterations,
            learning_rate=learning_rate,
            mask_opening=mask_opening,
        )
        check_one_of("norm", norm, NORMS)
        _check_sizes(image_size, crop_size, median_size)
        for name, share in (("defect_share", defect_share), ("score_share", score_share)):
            if not 0 < share <= 1:
                msg = f"{name} is {share}; it must be more than 0 and at most 1"
                raise InvalidInputError(msg)
        super().__init__(
            image_size,
            pre_processor,
            OpeningPostProcessor(mask_opening) if post_processor is True else post_processor,
            evaluator,
            visualizer,
        )
        self.defect_content = build(DefectGenerator, defect_content, "the generator defect_content")
        # A checkpoint holds plain values only; what it was is needed to go on training, where it is given again.
        self.hparams["defect_content"] = self.defect_content.name
        self.clustering = clustering
        self.center_separation = center_separation and clustering
        self.model = SidnModel(channels, clusters, gsrm and clustering, fusion_weight, median_size, score_share, norm)
        for branch in (self.model.texture, self.model.defect):
            branch.centers.requires_grad_(clustering)  # distributed training waits for a gradient of every weight
        self.defect_share = defect_share
        self.iterations = iterations
        crop = None if crop_size is None else (min(crop_size, image_size[0]), min(crop_size, image_size[1]))
        self.augmentation = Augmentation(crop, augment)
        self.learning_rate = learning_rate
        self.annealing = annealing
        self.texture_weight = texture_weight
        self.similarity_weight = similarity_weight
        self.clustering_weight = clustering_weight
        self.center_weight = center_weight

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, as in section III-E."""
        optimizer = Adam(self.model.parameters(), lr=self.learning_rate)
        return self.cosine_schedule(optimizer) if self.annealing else optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Draw defects on the normal images of a batch and learn to segment them."""
        normal = batch.image[batch.gt_label == LabelName.NORMAL].as_subclass(Tensor)
        images, mask = self.draw_defects(self.augmentation(normal))
        return self.sum_losses(self.losses(self.model(images), mask), batch_idx, len(images))  # eq. 25

    def draw_defects(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Draw defects on ``defect_share`` of normal images (B, C, H, W), and give their masks (B, 1, H, W), bool."""
        chosen = (torch.rand(len(images)) < self.defect_share).to(images.device)
        drawn, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        if chosen.any():
            drawn[chosen], mask[chosen] = self.defect_content(images[chosen])  # eq. 1
        return drawn, mask

    def losses(self, output: SidnOutput, mask: Tensor) -> dict[str, Tensor]:
        """Give the weighted losses of eq. 19 and 25.

        Args:
            output: What the network gives in training.
            mask: Where defects were drawn, (B, 1, H, W), bool.
        """
        texture, defect = self.model.texture.centers, self.model.defect.centers
        losses = {
            "segmentation_loss": segmentation_loss(*output[:2], mask, self.texture_weight),
            "similarity_loss": self.similarity_weight * similarity_loss(*output[2:]),
        }
        if self.clustering:
            clusters = clustering_loss(output.texture_features, texture) + clustering_loss(
                output.defect_features, defect
            )
            losses["clustering_loss"] = self.clustering_weight * clusters
        if self.center_separation:
            losses["center_loss"] = self.center_weight * center_loss(texture, defect)
        return losses


def _check_sizes(image_size: tuple[int, ...], crop_size: int | None, median_size: int) -> None:
    for name, value in (("image_size", image_size), ("crop_size", (crop_size or 16,))):
        if any(side <= 0 or side % 16 for side in value):
            msg = f"{name} is {value}; the sides must be multiples of 16"
            raise InvalidInputError(msg)
    if median_size < 1 or median_size % 2 == 0:
        msg = f"median_size is {median_size}; it must be odd"
        raise InvalidInputError(msg)
