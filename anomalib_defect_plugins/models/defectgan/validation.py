"""Checks of the arguments of Defect-GAN, and of a checkpoint against the model that loads it."""

from collections.abc import Mapping, Sequence
from typing import Any

from anomalib_defect_plugins.core.errors import ConfigurationError, InvalidInputError

MIN_SIDE = 32

FIXED = (
    "image_size",
    "categories",
    "multi_label",
    "channels",
    "residual_blocks",
    "discriminator_channels",
    "discriminator_layers",
    "spatial_control",
    "noise_injection",
    "layer_composition",
    "grey",
    "map_bias",
    "score_per_class",
)
"""Arguments that determine the shapes or the meaning of the weights."""


def check_origin(stored: Mapping[str, Any]) -> None:
    """Check that a checkpoint was saved by this model.

    Args:
        stored: Arguments stored in the checkpoint.

    Raises:
        ConfigurationError: If some of ``FIXED`` are missing.
    """
    if not set(FIXED) <= set(stored):
        msg = "the checkpoint is of another model; pass one that training DefectGan has saved"
        raise ConfigurationError(msg)


def check_same(stored: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Check that the weights of a checkpoint belong to a network with the same arguments.

    Args:
        stored: Arguments stored in the checkpoint.
        arguments: Arguments of the model.

    Raises:
        ConfigurationError: If one of ``FIXED`` differs; names the first and both values.
    """
    for name in FIXED:
        saved, current = _plain(stored[name]), _plain(arguments[name])
        if saved != current:
            msg = f"the checkpoint has {name} {saved}, this model {current}: use the same --model.{name} and data"
            raise ConfigurationError(msg)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_categories(categories: Sequence[str]) -> tuple[str, ...]:
    """Check that categories are a non-empty list without duplicates, and return them as a tuple.

    Raises:
        InvalidInputError: If they are not.
    """
    if isinstance(categories, str) or not categories or len(set(categories)) < len(categories):
        msg = f"categories is {categories!r}; it must be a list of different defect types"
        raise InvalidInputError(msg)
    return tuple(categories)


def check_sizes(image_size: tuple[int, ...], layers: int | None) -> None:
    """Check the image size and that the discriminator's layers fit it.

    Args:
        image_size: Height and width of the images in pixels.
        layers: Number of layers of the discriminator; ``None`` is the default.

    Raises:
        InvalidInputError: If one is invalid; states the valid values.
    """
    if min(image_size) < MIN_SIDE or any(side % 4 for side in image_size):
        msg = f"image_size is {image_size}; the sides must be multiples of 4 and at least {MIN_SIDE}"
        raise InvalidInputError(msg)
    most = min(image_size).bit_length() - 1
    if layers is not None and not 1 <= layers <= most:
        msg = f"discriminator_layers is {layers}; at an image size of {image_size} it must be 1 to {most}"
        raise InvalidInputError(msg)
