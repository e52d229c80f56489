"""What the arguments of Defect-GAN may be, and which of them a checkpoint shares with the model that loads it."""

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
)
"""Arguments that the weights of a checkpoint depend on."""


def check_origin(stored: Mapping[str, Any]) -> None:
    """Refuse the arguments that a checkpoint of another model has stored.

    Raises:
        ConfigurationError: Some of ``FIXED`` are not among them.
    """
    if not set(FIXED) <= set(stored):
        msg = "the checkpoint is of another model; give one that a training of DefectGan has left"
        raise ConfigurationError(msg)


def check_same(stored: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose weights belong to a network of other arguments.

    Args:
        stored: Arguments in the checkpoint.
        arguments: Those of the model.

    Raises:
        ConfigurationError: Names the first of ``FIXED`` that differs, and both values.
    """
    for name in FIXED:
        there, here = _plain(stored[name]), _plain(arguments[name])
        if there != here:
            msg = f"the checkpoint has {name} {there}, this model {here}: give the same --model.{name} and data"
            raise ConfigurationError(msg)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def checked(categories: Sequence[str]) -> tuple[str, ...]:
    """Give categories as a tuple.

    Raises:
        InvalidInputError: They are no list, none, or the same twice.
    """
    if isinstance(categories, str) or not categories or len(set(categories)) < len(categories):
        msg = f"categories is {categories!r}; it must be a list of different defect types"
        raise InvalidInputError(msg)
    return tuple(categories)


def check_numbers(residual_blocks: int, score_share: float, **shares: float) -> None:
    """Refuse numbers that cannot be; further shares must be in [0, 1).

    Raises:
        InvalidInputError: Names the first that cannot be.
    """
    if residual_blocks < 0:
        msg = f"residual_blocks is {residual_blocks}; it must be at least 0"
        raise InvalidInputError(msg)
    for name, share in shares.items():
        if not 0 <= share < 1:
            msg = f"{name} is {share}; it must be in [0, 1)"
            raise InvalidInputError(msg)
    if score_share > 1:
        msg = f"score_share is {score_share}; it must be in (0, 1]"
        raise InvalidInputError(msg)


def check_sizes(image_size: tuple[int, ...], layers: int | None) -> None:
    """Refuse images that the networks cannot take, and more layers of the discriminator than they have room for.

    Raises:
        InvalidInputError: Says what is possible.
    """
    if min(image_size) < MIN_SIDE or any(side % 4 for side in image_size):
        msg = f"image_size is {image_size}; the sides must be multiples of 4, {MIN_SIDE} at least"
        raise InvalidInputError(msg)
    most = min(image_size).bit_length() - 1
    if layers is not None and not 1 <= layers <= most:
        msg = f"discriminator_layers is {layers}; at an image size of {image_size} it must be 1 to {most}"
        raise InvalidInputError(msg)
