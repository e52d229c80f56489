"""Blocks that methods share, or that stand for a paper's operator."""

from .conv_block import ConvBlock
from .involution import Involution
from .median import MedianFilter
from .resize import FixedResize, Resize
from .texture_perceiving import TexturePerceivingModule, directional_maps
from .top_mean import top_mean

__all__ = [
    "ConvBlock",
    "FixedResize",
    "Involution",
    "MedianFilter",
    "Resize",
    "TexturePerceivingModule",
    "directional_maps",
    "top_mean",
]
