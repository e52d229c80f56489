"""Inspection classifier of section 3.2, which classifies defects and can be trained on synthetic images as well.

A source classifier behind a gradient reversal layer (figure 3) keeps the backbone from separating synthetic and real
images. The classifier is a plain Lightning module, because it has no anomaly maps for anomalib's components to process.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from anomalib.data import AnomalibDataset
from lightning.pytorch import LightningModule
from pandas import DataFrame
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset, WeightedRandomSampler
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.core.checks import check_fraction, check_positive
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data.dataclasses import GOOD, split_types
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.layers import GradientReversal, reversal_weight
from anomalib_defect_plugins.layers.timm_features import TimmFeatures
from anomalib_defect_plugins.models.components.checks import check_finite


class InspectionBatch(NamedTuple):
    """Training batch of the classifier, or a single sample without the dimension B."""

    image: Tensor
    """Images, shape (B, 3, H, W), float in [0, 1]."""
    label: Tensor
    """Defect types of the images, shape (B, K), bool; all false for a normal image."""
    synthetic: Tensor
    """Whether a generator synthesized or restored the image, shape (B,), bool."""


class InspectionSet(Dataset[InspectionBatch]):
    """Images of an anomalib data set for the inspection classifier.

    Combine real, synthetic and restored images with ``torch.utils.data.ConcatDataset``.

    Args:
        dataset: Data set to read from; its masks and augmentations are ignored.
        categories: The K defect types to distinguish.
        synthetic: Whether a generator synthesized or restored these images.
        image_size: Side in pixels that images are resized to.

    Raises:
        ConfigurationError: If the data set has a defect type that is not among the categories.
    """

    def __init__(
        self, dataset: AnomalibDataset, categories: Sequence[str], synthetic: bool = False, image_size: int = 224
    ) -> None:
        self.dataset = dataset
        self.types = [split_types(name) for name in with_defect_types(dataset.samples).defect_type]
        self.categories = tuple(categories)
        self.synthetic = synthetic
        self.image_size = image_size
        unknown = sorted({name for types in self.types for name in types} - set(categories))
        if unknown:
            msg = f"{dataset.name} has defects of type {', '.join(unknown)}; the categories are {', '.join(categories)}"
            raise ConfigurationError(msg)

    def __len__(self) -> int:
        return len(self.types)

    def __getitem__(self, index: int) -> InspectionBatch:
        """Load an image (3, image_size, image_size), its label (K,) and its source ()."""
        self.dataset.augmentations = None
        image = cast(Tensor, self.dataset[index].image).as_subclass(Tensor)
        image = resize(image, [self.image_size] * 2, InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
        label = torch.tensor([name in self.types[index] for name in self.categories])
        return InspectionBatch(image, label, torch.tensor(self.synthetic))


def equal_shares(parts: Sequence[InspectionSet], draws: int, synthetic_share: float = 0.5) -> WeightedRandomSampler:
    """Return a sampler of concatenated sets that draws each class equally often, and synthetic images equally in each.

    With other shares, the class of an image predicts its source, and the reversed gradient of the source classifier
    erases the classes from the features (label shift).

    Args:
        parts: Real, synthetic and restored images, in the order of their concatenation.
        draws: Number of images to draw, with replacement.
        synthetic_share: Share of synthetic images among the draws of a class, in [0, 1).

    Raises:
        InvalidInputError: If a class has no real or no synthetic images to draw.
    """
    check_fraction("synthetic_share", synthetic_share, zero=True)
    rows = [("+".join(types) or GOOD, part.synthetic) for part in parts for types in part.types]
    table = DataFrame(rows, columns=["kind", "synthetic"])
    counts = table.value_counts()
    weight = {True: synthetic_share, False: 1 - synthetic_share}
    for kind, source in product(table.kind.unique(), weight):
        if weight[source] and (kind, source) not in counts.index:
            name = "synthetic" if source else "real"
            msg = (
                f"there is no {name} image of the class {kind}, so its share of synthetic images differs from others: "
            )
            raise InvalidInputError(
                msg + "add restored images for good ones (synthesize --restored), and make all types"
            )
    return WeightedRandomSampler([weight[source] / counts[kind, source] for kind, source in rows], draws)


class InspectionOutput(NamedTuple):
    """Output of the network."""

    logits: Tensor
    """Class logits, shape (B, K) if an image may show several types, else (B, 1 + K) with the normal class first."""
    source_logits: Tensor
    """Source logits, shape (B,), high for synthetic images; the backbone receives their gradient reversed."""


class InspectionModel(nn.Module):
    """Backbone, class head and source head of figure 3.

    Args:
        classes: Outputs of the class head.
        backbone: Name of a timm model, such as ``resnet34`` or ``densenet121``.
        pre_trained: Whether to load timm's weights.

    Raises:
        InvalidInputError: If timm does not have the model, or its weights cannot be loaded.
    """

    def __init__(self, classes: int, backbone: str = "resnet34", pre_trained: bool = True) -> None:
        super().__init__()
        self.backbone = TimmFeatures(backbone, pre_trained)
        self.classifier = nn.Linear(self.backbone.num_features, classes)
        self.reversal = GradientReversal()
        self.source_classifier = nn.Linear(self.backbone.num_features, 1)

    def forward(self, image: Tensor) -> InspectionOutput:
        """Classify (B, 3, H, W), float in [0, 1]."""
        features = self.backbone(image)
        return InspectionOutput(self.classifier(features), self.source_classifier(self.reversal(features))[:, 0])


class InspectionClassifier(LightningModule):
    """Classifier of the defects in images, trained on an :class:`InspectionSet`.

    Args:
        categories: The K defect types.
        multi_label: Whether an image may show several types: a sigmoid and binary cross-entropy for each type, instead
            of a softmax over the types and the normal class.
        backbone: Name of a timm model; the paper uses ``resnet34`` and ``densenet121``.
        pre_trained: Whether to load timm's weights; the paper does not specify it.
        source_classifier: Whether to train the source classifier, which requires synthetic images.
        frozen_norm: Whether the backbone's batch norms keep their pretrained statistics: for few images, for mixed
            batches of real and synthetic images, and for weights whose norms were folded into the convolutions.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD; the paper does not specify it.

    Raises:
        InvalidInputError: If an argument is invalid, or the backbone cannot be loaded.
    """

    def __init__(
        self,
        categories: Sequence[str],
        multi_label: bool = False,
        backbone: str = "resnet34",
        pre_trained: bool = True,
        source_classifier: bool = True,
        frozen_norm: bool = False,
        learning_rate: float = 1e-3,
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        check_positive(learning_rate=learning_rate)
        if not categories:
            msg = "categories is empty; name the defect types to distinguish"
            raise InvalidInputError(msg)
        self.save_hyperparameters()
        self.hparams["categories"] = list(categories)  # a plain list, which weights_only loading accepts
        self.categories = tuple(categories)
        self.multi_label = multi_label
        self.source_classifier = source_classifier
        self.frozen_norm = frozen_norm
        self.learning_rate = learning_rate
        self.momentum = momentum
        classes = len(categories) + (not multi_label)
        self.model = InspectionModel(classes, backbone, pre_trained)
        self.metrics = nn.ModuleDict({stage: _metrics(classes, multi_label) for stage in ("val", "test")})
        self.train()  # Lightning does not call it before training

    def train(self, mode: bool = True) -> "InspectionClassifier":
        """Set training mode; frozen norms stay in evaluation mode."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.model.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Return class probabilities (B, K), or (B, 1 + K) with the normal class first, of images in [0, 1]."""
        logits: Tensor = self.model(image).logits
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    def targets(self, label: Tensor) -> Tensor:
        """Convert labels to training targets of the class head.

        Args:
            label: Defect types, shape (B, K), bool.

        Returns:
            The labels as floats (B, K) if ``multi_label``, else class indices (B,) with 0 for normal images.

        Raises:
            InvalidInputError: If an image shows several types without ``multi_label``.
        """
        if self.multi_label:
            return label.float()
        if (label.sum(1) > 1).any():
            msg = "an image shows defects of several types, which needs multi_label"
            raise InvalidInputError(msg)
        return torch.where(label.any(1), 1 + label.int().argmax(1), 0)

    def losses(self, batch: InspectionBatch) -> dict[str, Tensor]:
        """Compute the class loss and, with ``source_classifier``, the source loss."""
        output, targets = self.model(batch.image), self.targets(batch.label)
        classify = F.binary_cross_entropy_with_logits if self.multi_label else F.cross_entropy
        losses = {"class_loss": classify(output.logits, targets)}
        if self.source_classifier:
            source = F.binary_cross_entropy_with_logits(output.source_logits, batch.synthetic.to(output.logits))
            losses["source_loss"] = source
        return losses

    def training_step(self, batch: InspectionBatch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch; the weight of the reversed gradient grows over the training."""
        del batch_idx
        self.model.reversal.weight = reversal_weight(self.global_step / self.trainer.estimated_stepping_batches)
        losses = self.losses(batch)
        check_finite(losses, f"step {self.global_step + 1}")
        self.log_dict(losses, prog_bar=True, batch_size=len(batch.image))
        return cast(Tensor, sum(losses.values()))

    def validation_step(self, batch: InspectionBatch, batch_idx: int) -> None:
        """Log ``val_accuracy``, ``val_macro_f1`` and, with several labels, ``val_label_accuracy``."""
        del batch_idx
        self._log_metrics(batch, "val")

    def test_step(self, batch: InspectionBatch, batch_idx: int) -> None:
        """Log the same metrics with the prefix ``test_``."""
        del batch_idx
        self._log_metrics(batch, "test")

    def _log_metrics(self, batch: InspectionBatch, stage: str) -> None:
        metrics = cast(MetricCollection, self.metrics[stage])
        metrics.update(self(batch.image), self.targets(batch.label).long())
        self.log_dict({f"{stage}_{name}": metric for name, metric in metrics.items()}, batch_size=len(batch.image))

    def configure_optimizers(self) -> Optimizer:
        """Return SGD."""
        return SGD(self.parameters(), self.learning_rate, self.momentum)


def _metrics(classes: int, multi_label: bool) -> MetricCollection:
    """Return the metrics of a stage.

    With several labels, ``accuracy`` is the fraction of images whose labels are all right, as defined by CODEBRIM's
    authors, who count the background as a further label. A class that neither occurs nor is predicted is excluded from
    the mean F1.
    """
    if multi_label:
        return MetricCollection(
            {
                "accuracy": MultilabelExactMatch(classes),
                "label_accuracy": MultilabelAccuracy(classes, average="micro"),
                "macro_f1": MultilabelF1Score(classes, average="macro"),
            }
        )
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "macro_f1": MulticlassF1Score(classes, average="macro"),
        }
    )
