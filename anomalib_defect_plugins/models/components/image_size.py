"""The image size of a model: as set, or that of the training images."""

from typing import TYPE_CHECKING, Any, ClassVar, cast

from anomalib.data import AnomalibDataModule
from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from torchvision.transforms.v2 import Compose, Grayscale, InterpolationMode, Resize, Transform

from anomalib_defect_plugins.core.image_io import Size
from anomalib_defect_plugins.data.typical_size import fit_size, typical_size
from anomalib_defect_plugins.models.components.checks import datamodule_of, set_up_data
from anomalib_defect_plugins.pre_processing import AntialiasedPreProcessor

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object


class ImageSize(_Module):
    """Sets the size of a model's images. Comes before ``AnomalibModule`` among the bases of a model.

    Args:
        image_size: Height and width that the default pre-processor resizes images to, in pixels; ``None`` selects, at
            the start of training, that of the training images.
        pre_processor: As in anomalib; ``True`` is :meth:`configure_pre_processor`.
        post_processor: As in anomalib.
        evaluator: As in anomalib.
        visualizer: As in anomalib.
        grey: Whether the default pre-processor makes images grey, instead of the attribute of the class.

    Attributes:
        default_image_size: Image size of a model that is not trained yet, if none was passed.
        size_multiple: Sides that are taken from the training images are rounded to multiples of it.
        min_side: Lowest height and width in pixels that are taken from the training images.
        max_pixels: Larger training images are scaled down to this number of pixels: 640 x 256, which two cores train
            on in minutes.
        grey: Whether the default pre-processor makes images grey.
    """

    default_image_size: ClassVar[Size] = (256, 256)
    size_multiple: int = 16
    min_side: int = 32
    max_pixels: int = 640 * 256
    grey: ClassVar[bool] = False

    def __init__(
        self,
        image_size: Size | None,
        pre_processor: PreProcessor | bool,
        post_processor: PostProcessor | bool,
        evaluator: Evaluator | bool,
        visualizer: Visualizer | bool,
        grey: bool | None = None,
    ) -> None:
        size = self.default_image_size if image_size is None else (image_size[0], image_size[1])
        default = resizing(size, self.grey if grey is None else grey)
        super().__init__(
            default if pre_processor is True else pre_processor,
            post_processor,
            evaluator,
            visualizer,
        )
        self._requested_size = size
        self._takes_size_of_data = image_size is None and pre_processor is True

    @classmethod
    def configure_pre_processor(cls, image_size: Size | None = None) -> PreProcessor:
        """Return a bicubic resize to ``image_size``, grey if the model is; pixel values stay in [0, 1]."""
        return resizing(image_size or cls.default_image_size, cls.grey)

    @property
    def image_size(self) -> Size:
        """Height and width that images are resized to, by the pre-processor that is in use."""
        return cast(Size, tuple(self.input_size or self._requested_size))

    def fix_image_size(self) -> None:
        """Store ``image_size`` in checkpoints: for networks that are built for one size."""
        self._takes_size_of_data = False
        self.hparams["image_size"] = self.image_size

    def prepare_data(self) -> None:
        """Set the data module up, with one-line errors, and take the image size from it if none was passed."""
        if not self._takes_size_now:
            set_up_data(self.trainer)
            return
        pre_processor = cast(AntialiasedPreProcessor, self.pre_processor)
        transform = pre_processor.transform
        # With a transform, the data module would resize, and warn of lost masks, before the size is known.
        pre_processor.transform = None
        try:
            set_up_data(self.trainer)
        finally:
            pre_processor.transform = transform
        datamodule = datamodule_of(self.trainer)
        if datamodule is not None:
            size = fit_size(typical_size(datamodule), self.size_multiple, self.min_side, self.max_pixels)
            self._resize_to(size, datamodule)

    def share_image_size(self) -> None:
        """Use the image size of the first process in all; it has read the data."""
        datamodule = datamodule_of(self.trainer)
        if self._takes_size_now and datamodule is not None:
            self._resize_to(self.trainer.strategy.broadcast(self.image_size), datamodule)

    @property
    def _takes_size_now(self) -> bool:
        return self._takes_size_of_data and self.trainer.training

    def _resize_to(self, size: Size, datamodule: AnomalibDataModule) -> None:
        pre_processor = cast(AntialiasedPreProcessor, self.pre_processor)
        _, *others = cast(Compose, pre_processor.transform).transforms
        pre_processor.set_transform(Compose([_resize(size), *others]))
        datamodule._update_augmentations()  # anomalib reads images at the size of the model

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the size of the checkpoint, which a further training keeps."""
        super().on_load_checkpoint(checkpoint)
        self._takes_size_of_data = False
        trainer = getattr(self, "_trainer", None)
        datamodule = None if trainer is None else datamodule_of(trainer)
        if datamodule is not None and hasattr(datamodule, "train_data"):
            datamodule._update_augmentations()


def resizing(image_size: Size, grey: bool) -> PreProcessor:
    """Return a pre-processor that resizes bicubically with antialiasing, also in exported graphs.

    Args:
        image_size: Height and width in pixels.
        grey: Whether to convert to grey. Images keep three (equal) channels, which anomalib's batches require.
    """
    steps: list[Transform] = [_resize(image_size)]
    if grey:
        steps.append(Grayscale(num_output_channels=3))
    return AntialiasedPreProcessor(Compose(steps))


def _resize(size: Size) -> Resize:
    return Resize(size, interpolation=InterpolationMode.BICUBIC, antialias=True)
