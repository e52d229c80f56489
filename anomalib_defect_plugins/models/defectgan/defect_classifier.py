"""The inspection classifier of section 3.2: names the defects in an image, and learns from synthetic ones too.

A source classifier behind a gradient reversal layer (figure 3) keeps the backbone from telling synthetic images from
real ones. It is a plain Lightning module with datasets of its own: Lightning's trainer resumes, picks devices and
averages over processes, and none of anomalib's parts for anomaly maps are of use here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from anomalib.data import AnomalibDataset
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from anomalib_defect_plugins.core.checks import check_positive
from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError
from anomalib_defect_plugins.data.dataclasses import split_types
from anomalib_defect_plugins.data.training_set import with_defect_types
from anomalib_defect_plugins.layers import GradientReversal, reversal_weight
from anomalib_defect_plugins.layers.timm_features import TimmFeatures
from anomalib_defect_plugins.models.components.checks import check_finite


class InspectionBatch(NamedTuple):
    """What the classifier learns from."""

    image: Tensor
    """(B, 3, H, W), float in [0, 1]."""
    label: Tensor
    """(B, K), bool: which of the K defect types the image shows; none of them if it is normal."""
    synthetic: Tensor
    """(B,), bool: whether a generator made or restored the image."""


class InspectionSet(Dataset):
    """Images of an anomalib data set for the inspection classifier.

    Put several together with ``torch.utils.data.ConcatDataset``: real images, synthetic ones, and restored normal ones.

    Args:
        dataset: The images; masks and augmentations are left out.
        categories: The K defect types that are to be told apart.
        synthetic: Whether a generator made or restored these images.
        image_size: Side in pixels that they are resized to.

    Raises:
        ConfigurationError: The data set has a defect type that is not among the categories.
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
        """Read an image: (3, image_size, image_size), its label (K,) and its source ()."""
        self.dataset.augmentations = None
        image = self.dataset[index].image.as_subclass(Tensor)
        image = resize(image, [self.image_size] * 2, InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
        label = torch.tensor([name in self.types[index] for name in self.categories])
        return InspectionBatch(image, label, torch.tensor(self.synthetic))


class InspectionOutput(NamedTuple):
    """What the network says."""

    logits: Tensor
    """(B, K) if an image may show several types, else (B, 1 + K), of which the first is the normal class."""
    source_logits: Tensor
    """(B,), high for synthetic images; its gradient arrives reversed at the backbone."""


class InspectionModel(nn.Module):
    """Backbone, class head and source head of figure 3.

    Args:
        classes: Outputs of the class head.
        backbone: Name of a timm model, such as ``resnet34`` or ``densenet121``.
        pre_trained: Whether the backbone starts from timm's weights, or at random.

    Raises:
        InvalidInputError: timm has no such model, or its weights cannot be had.
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
    """Learns to name the defects of images. Batches are an ``InspectionBatch``, from an ``InspectionSet``.

    Args:
        categories: The K defect types.
        multi_label: Whether an image may show several types: sigmoid and binary cross-entropy for each, instead of a
            softmax over them and the normal class.
        backbone: Name of a timm model; the paper's are ``resnet34`` and ``densenet121``.
        pre_trained: Whether the backbone starts from timm's weights. The paper does not say.
        source_classifier: Whether the source classifier takes part. Without synthetic images it has nothing to learn.
        frozen_norm: Whether the backbone's batch norms keep the statistics that they came with: for few images, for
            batches of real and synthetic ones, and for weights whose norms were folded into the convolutions.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD, on which the paper is silent.

    Raises:
        InvalidInputError: An argument cannot be; the backbone cannot be had.
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
            msg = "categories is empty; name the defect types that are to be told apart"
            raise InvalidInputError(msg)
        self.save_hyperparameters()
        self.hparams["categories"] = list(categories)  # plain values only, so that checkpoints load safely
        self.categories = tuple(categories)
        self.multi_label = multi_label
        self.source_classifier = source_classifier
        self.frozen_norm = frozen_norm
        self.learning_rate = learning_rate
        self.momentum = momentum
        classes = len(categories) + (not multi_label)
        self.model = InspectionModel(classes, backbone, pre_trained)
        self.metrics = nn.ModuleDict(
            {stage: MetricCollection(_metrics(classes, multi_label)) for stage in ("val", "test")}
        )
        self.train()  # which Lightning does not call before it fits

    def train(self, mode: bool = True) -> "InspectionClassifier":
        """Switch between training and evaluation; frozen norms stay in evaluation."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.model.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Give the probabilities of (B, 3, H, W) in [0, 1]: (B, K), or (B, 1 + K) with the normal class first."""
        logits = self.model(image).logits
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    def targets(self, label: Tensor) -> Tensor:
        """Give what the class head learns of labels (B, K), bool: these, or the number of the class (B,), 0 is normal.

        Raises:
            InvalidInputError: An image shows several types, and the classifier is for one.
        """
        if self.multi_label:
            return label.float()
        if (label.sum(1) > 1).any():
            msg = "an image shows defects of several types, which needs multi_label"
            raise InvalidInputError(msg)
        return torch.where(label.any(1), 1 + label.int().argmax(1), 0)

    def losses(self, batch: InspectionBatch) -> dict[str, Tensor]:
        """Give the loss of the classes, and that of the sources if they take part."""
        output, targets = self.model(batch.image), self.targets(batch.label)
        classify = F.binary_cross_entropy_with_logits if self.multi_label else F.cross_entropy
        losses = {"class_loss": classify(output.logits, targets)}
        if self.source_classifier:
            source = F.binary_cross_entropy_with_logits(output.source_logits, batch.synthetic.to(output.logits))
            losses["source_loss"] = source
        return losses

    def training_step(self, batch: InspectionBatch, batch_idx: int) -> Tensor:
        """Learn from a batch; the weight of the reversed gradient grows over the training."""
        del batch_idx
        self.model.reversal.weight = reversal_weight(self.global_step / self.trainer.estimated_stepping_batches)
        losses = self.losses(batch)
        check_finite(losses, f"step {self.global_step + 1}")
        self.log_dict(losses, prog_bar=True, batch_size=len(batch.image))
        return sum(losses.values())

    def validation_step(self, batch: InspectionBatch, batch_idx: int) -> None:
        """Log ``val_accuracy``, ``val_macro_f1`` and, with several labels, ``val_label_accuracy``."""
        del batch_idx
        self._score(batch, "val")

    def test_step(self, batch: InspectionBatch, batch_idx: int) -> None:
        """Log the same with ``test_``."""
        del batch_idx
        self._score(batch, "test")

    def _score(self, batch: InspectionBatch, stage: str) -> None:
        found: dict[str, Metric] = self.metrics[stage]
        found.update(self(batch.image), self.targets(batch.label).long())
        self.log_dict({f"{stage}_{name}": metric for name, metric in found.items()}, batch_size=len(batch.image))

    def configure_optimizers(self) -> Optimizer:
        """SGD."""
        return SGD(self.parameters(), self.learning_rate, self.momentum)


def _metrics(classes: int, multi_label: bool) -> dict[str, Metric]:
    """Give the metrics of a stage.

    ``accuracy`` with several labels is the share of images all of whose labels are right, as CODEBRIM's authors count
    theirs; they count the background as a label of its own. A class that is neither there nor predicted is left out of
    the mean F1.
    """
    if multi_label:
        return {
            "accuracy": MultilabelExactMatch(classes),
            "label_accuracy": MultilabelAccuracy(classes, average="micro"),
            "macro_f1": MultilabelF1Score(classes, average="macro"),
        }
    return {
        "accuracy": MulticlassAccuracy(classes, average="micro"),
        "macro_f1": MulticlassF1Score(classes, average="macro"),
    }
