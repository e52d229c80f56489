"""Blocks that methods share, or that stand for a paper's operator."""

from .conv_block import ConvBlock
from .gradient_reversal import GradientReversal, reversal_weight
from .involution import Involution
from .median import MedianFilter
from .noise_injection import NoiseInjection
from .norms import NORMS
from .resize import FixedResize, Resize
from .spade import Moments, Spade, at_size, blend, moments_of
from .texture_perceiving import TexturePerceivingModule, directional_maps
from .top_mean import top_mean

__all__ = [
    "NORMS",
    "ConvBlock",
    "FixedResize",
    "GradientReversal",
    "Involution",
    "MedianFilter",
    "Moments",
    "NoiseInjection",
    "Resize",
    "Spade",
    "TexturePerceivingModule",
    "at_size",
    "blend",
    "directional_maps",
    "moments_of",
    "reversal_weight",
    "top_mean",
]
