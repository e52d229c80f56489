"""Blocks that methods share, or that stand for a paper's operator."""

from .conv_block import ConvBlock
from .resize import FixedResize, Resize
from .texture_perceiving import TexturePerceivingModule, directional_maps

__all__ = ["ConvBlock", "FixedResize", "Resize", "TexturePerceivingModule", "directional_maps"]
