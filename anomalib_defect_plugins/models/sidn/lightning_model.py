"""SIDN: trained on normal images with artificial defects, which are drawn anew at each step.

Paper: A semantic information decomposition network for accurate segmentation of texture defects, IEEE Transactions on
Industrial Informatics 2023, https://doi.org/10.1109/TII.2022.3217751.
"""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

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

from anomalib_defect_plugins.core.checks import check_fraction, check_not_negative, check_one_of, check_positive
from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.supervision import Supervision
from anomalib_defect_plugins.generators.masks import random_masks
from anomalib_defect_plugins.generators.mixed import build_generator, generator_names
from anomalib_defect_plugins.layers import NORMS
from anomalib_defect_plugins.models.components.augmentation import Augmentation
from anomalib_defect_plugins.models.components.defect_model import DefectModel
from anomalib_defect_plugins.models.components.fitted_density import FittedDensity
from anomalib_defect_plugins.models.components.iterative_training import IterativeTraining
from anomalib_defect_plugins.models.sidn.loss import (
    DISTANCE_SCALE,
    center_loss,
    clustering_loss,
    segmentation_loss,
    similarity_loss,
    start_centers,
)
from anomalib_defect_plugins.models.sidn.separation import separated_features
from anomalib_defect_plugins.models.sidn.torch_model import SidnModel, SidnOutput
from anomalib_defect_plugins.post_processing import OpeningPostProcessor, UnitOpeningPostProcessor

NOISE_SHARE = 0.5
"""Part of the images without a drawn defect whose features get noise, if ``feature_noise`` is not 0."""


class Sidn(FittedDensity, DefectModel, IterativeTraining, AnomalibModule):
    """Semantic information decomposition network: a branch for texture and a branch for defects segment the image.

    Args:
        image_size: Height and width that images are resized to, in pixels, multiples of 16; ``None`` selects those of
            the training images, scaled down to 640 x 256 pixels if they have more. The paper's is (256, 256). Images
            are converted to grey where there is no backbone.
        backbone: Name of a convolutional timm model with maps at strides 4 to 32, which is not trained. Both branches
            use the first three; ``None`` for the paper's network.
        pre_trained: Whether to load timm's weights into the backbone, which are downloaded once; or a file with them.
        density_weight: Weight, in the texture branch, of the distances of the backbone's features to those of the
            normal training images, fitted after the last step: to the nearest of 512 centres at strides 8 and 16, and
            of 512 at strides 16 and 32. Maps are then not limited to [0, 1], and the image score is the one that
            ``score`` selects. 0, or no backbone, selects the paper's branch and score.
        score: Image score with ``density_weight``: ``distances``, the fourth root of the mean fourth power of their
            deviations from the image's mean, or ``product``, of this and the same of the branches' log-odds.
        position_means: Whether the mean feature of the normal training images at each position is subtracted before
            the distances: aligned parts look alike at the same position only. Of no effect without ``density_weight``.
        skips: Whether each branch adds its features at strides 8 and 4 to those of its segmentation module.
        channels: Channels C of the first layer; the paper's is 16, with about four times the arithmetic.
        clusters: Cluster centres K of each branch.
        clustering: Whether features are clustered (L_kl). Without clustering, L_td and the GSRM have no centres to
            work on and are disabled too (method A of the paper's Table II).
        center_separation: Whether the centres of the two branches are separated (L_td; without: method B).
        gsrm: Whether to use the global semantic relation module (without: method C; with all: method D).
        norm: Normalisation layers, ``group``, ``instance`` or ``batch``; the paper does not specify them. Batch norm
            is faster after export, but its statistics fit only the training images (measured in experiments/sidn).
        defect_content: Generator of the artificial defects: a registered name, an instance, a mapping with
            ``class_path`` and ``init_args``, or several of them, each of which draws a part of the defects. ``noise``
            is the paper's; it teaches the network to detect noise, not what differs from its surroundings (measured
            in experiments/sidn). ``shading`` draws large, shallow defects, from which irregular textures are learned
            worse.
        defect_share: Share of the images of a batch that defects are drawn on, in (0, 1]. A network that never sees a
            defect-free image marks the most unusual part of every image.
        feature_noise: Noise in the backbone's maps, within random masks, of half of the images without a drawn defect:
            its standard deviation, as a multiple of that of each channel. 0, or no backbone, draws none.
        iterations: Training steps; the paper does not specify them.
        crop_size: Side of the random crop of each training image, in pixels, a multiple of 16, limited to the image;
            ``None`` uses the whole image, as in the paper. Evaluation images are not cropped.
        augment: Whether training images are randomly rotated, scaled and relit; they are flipped in any case. Disable
            it if such a change, for example in brightness, may be a defect.
        learning_rate: Learning rate of Adam; the paper's is 1e-4.
        annealing: Whether the learning rate falls to 0 along a cosine; constant in the paper.
        hard_ratio: Normal pixels of an image in the segmentation loss, those with the highest losses, as a multiple of
            its defect pixels; ``None`` counts all of them with ``texture_weight``, as the paper does.
        printed_losses: Whether L_s and L_kl are sums over pixels and features, as printed in the paper, not means.
        texture_weight: Weight of texture pixels in the segmentation loss, lambda_1.
        similarity_weight: Weight of L_z, lambda_2.
        clustering_weight: Weight of L_kl, lambda_3.
        center_weight: Weight of L_td, lambda_4.
        fusion_weight: Weight of the defect branch in the fusion, lambda_f, in [0, 1].
        median_size: Side of the median filter in pixels, odd; 1 disables it.
        score_share: Share of the highest pixels of an anomaly map whose mean is the image score without
            ``density_weight``, in (0, 1].
        standardize: Whether the FSEM's features are standardised by image and channel before its last ReLU, and the
            centres have their length in the GSRM. The paper specifies neither; without, as in version 0.1, the centres
            of a branch become equal, and what the GSRM adds is negligible.
        mask_opening: Side in pixels of the smallest square that is kept in predicted masks; 1 disables the opening.
            Exported graphs do not include it.
        pre_processor: As in anomalib.
        post_processor: As in anomalib; a custom one overrides ``mask_opening``.
        evaluator: As in anomalib.
        visualizer: As in anomalib.

    Attributes:
        uses_positions: Whether its maps depend on the position in an image, which training on tiles warns of.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    supervision = Supervision.NORMAL
    paper = "https://doi.org/10.1109/TII.2022.3217751"
    former_arguments = MappingProxyType(
        {
            "backbone": None,
            "density_weight": 0.0,
            "skips": False,
            "standardize": False,
            "hard_ratio": None,
            "clustering_weight": 0.01,
            "score": "distances",
            "position_means": False,
            "feature_noise": 0.0,
        }
    )

    model: SidnModel

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        backbone: str | None = "mobilenetv2_100",
        pre_trained: bool | str | Path = True,
        density_weight: float = 3.0,
        score: str = "distances",
        position_means: bool = True,
        skips: bool = True,
        channels: int = 8,
        clusters: int = 12,
        clustering: bool = True,
        center_separation: bool = True,
        gsrm: bool = True,
        norm: str = "group",
        defect_content: DefectGenerator | str | Sequence[DefectGenerator | str] = ("perturb", "shading"),
        defect_share: float = 0.5,
        feature_noise: float = 0.5,
        iterations: int = 400,
        crop_size: int | None = 128,
        augment: bool = True,
        learning_rate: float = 1e-3,
        annealing: bool = True,
        hard_ratio: float | None = None,
        printed_losses: bool = False,
        texture_weight: float = 0.1,
        similarity_weight: float = 0.01,
        clustering_weight: float = 0.1,
        center_weight: float = 0.01,
        fusion_weight: float = 0.5,
        median_size: int = 3,
        score_share: float = 0.01,
        standardize: bool = True,
        mask_opening: int = 1,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        check_positive(
            channels=channels,
            clusters=clusters,
            iterations=iterations,
            learning_rate=learning_rate,
            mask_opening=mask_opening,
        )
        check_one_of("norm", norm, NORMS)
        _check_sizes(image_size or self.default_image_size, crop_size, median_size)
        check_fraction("defect_share", defect_share, one=True)
        check_fraction("score_share", score_share, one=True)
        check_not_negative(feature_noise=feature_noise)
        # With a density, scores and maps have no upper limit.
        opening = OpeningPostProcessor if backbone and density_weight else UnitOpeningPostProcessor
        super().__init__(
            image_size,
            pre_processor,
            opening(mask_opening) if post_processor is True else post_processor,
            evaluator,
            visualizer,
            grey=backbone is None,
        )
        self.defect_content = build_generator(defect_content, "the generator defect_content")
        # Checkpoints hold plain values only. The name suffices, because a generator is passed again to resume training.
        self.hparams["defect_content"] = generator_names(self.defect_content)
        self.clustering = clustering
        self.center_separation = center_separation and clustering
        self.model = SidnModel(
            channels,
            clusters,
            gsrm and clustering,
            fusion_weight,
            median_size,
            score_share,
            norm,
            backbone,
            pre_trained,
            skips,
            density_weight if backbone else 0.0,
            standardize,
            score,
            position_means,
            feature_noise if backbone else 0.0,
        )
        for branch in (self.model.texture, self.model.defect):
            branch.centers.requires_grad_(clustering)  # distributed training requires a gradient for every weight
        self.uses_positions = bool(backbone and density_weight and position_means)
        self.defect_share = defect_share
        self.iterations = iterations
        self.augmentation = Augmentation(None if crop_size is None else (crop_size, crop_size), augment)
        self.learning_rate = learning_rate
        self.hard_ratio = hard_ratio
        self.printed_losses = printed_losses
        self.annealing = annealing
        self.texture_weight = texture_weight
        self.similarity_weight = similarity_weight
        self.clustering_weight = clustering_weight
        self.center_weight = center_weight

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create Adam, as in section III-E."""
        optimizer = Adam([one for one in self.parameters() if one.requires_grad], lr=self.learning_rate)
        return self.cosine_schedule(optimizer) if self.annealing else optimizer

    def training_step(self, batch: Batch[Any], batch_idx: int) -> Tensor | None:
        """Draw defects on the normal images of a batch, and return the loss of their segmentation.

        Batches without a normal image are skipped.
        """
        normal = cast(Tensor, batch.image)[batch.gt_label == LabelName.NORMAL].as_subclass(Tensor)
        if not len(normal):
            return None
        images, mask, noise = self.draw_defects(self.augmentation(normal))
        if self.clustering and self.global_step == 0:
            self.start_centers(images)
        output = self.model(images, noise, ~mask.flatten(1).any(1)) if self.model.feature_noise else self.model(images)
        return self.sum_losses(self.losses(output, mask | noise), batch_idx, len(images))  # eq. 25

    @torch.no_grad()
    def start_centers(self, images: Tensor) -> None:
        """Start the centres of both branches from the features of images (B, C, H, W)."""
        features = separated_features(self.model, images)
        for branch, positions in zip((self.model.texture, self.model.defect), features, strict=True):
            centers = start_centers(positions.flatten(0, 1), len(branch.centers))
            # The centres are the same in all processes.
            branch.centers.copy_(self.trainer.strategy.broadcast(centers) if self._trainer else centers)

    def draw_defects(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw defects on a random ``defect_share`` of normal images, and masks of noise for a part of the others.

        Args:
            images: Normal images, shape (B, C, H, W), float32 in [0, 1].

        Returns:
            Images, same shape, masks of their defects, and masks of the noise that is to be added to their features,
            both of shape (B, 1, H, W), bool.
        """
        drawn = torch.rand(len(images)) < self.defect_share
        noisy = torch.zeros_like(drawn)
        if self.model.feature_noise:
            noisy = ~drawn & (torch.rand(len(images)) < NOISE_SHARE)
        drawn, noisy = drawn.to(images.device), noisy.to(images.device)
        defective, mask = images.clone(), torch.zeros_like(images[:, :1], dtype=torch.bool)
        noise = mask.clone()
        if drawn.any():
            defective[drawn], mask[drawn] = self.defect_content(images[drawn])  # eq. 1
        if noisy.any():
            size = (images.shape[-2], images.shape[-1])
            noise[noisy] = random_masks(int(noisy.sum()), size, torch.default_generator, images.device)
        return defective, mask, noise

    def losses(self, output: SidnOutput, mask: Tensor) -> dict[str, Tensor]:
        """Compute the weighted losses of eq. 19 and 25.

        Args:
            output: Output of the network in training.
            mask: Masks of the drawn defects, shape (B, 1, H, W), bool.
        """
        texture, defect = self.model.texture.centers, self.model.defect.centers
        losses = {
            "segmentation_loss": segmentation_loss(
                *output[:2], mask, self.texture_weight, self.hard_ratio, self.printed_losses
            ),
            "similarity_loss": self.similarity_weight * similarity_loss(*output[2:]),
        }
        if self.clustering:
            pairs = ((output.texture_features, texture), (output.defect_features, defect))
            clusters = [
                clustering_loss(features, centers, DISTANCE_SCALE, self.printed_losses) for features, centers in pairs
            ]
            losses["clustering_loss"] = self.clustering_weight * (clusters[0] + clusters[1])
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
