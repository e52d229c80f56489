"""Network layers: blocks that several models share, and operators published on their own."""

from anomalib_defect_plugins.layers.conv_block import ConvBlock
from anomalib_defect_plugins.layers.encoder import Encoder, feature_maps, maps_at, weights_from_checkpoint
from anomalib_defect_plugins.layers.gradient_reversal import GradientReversal, reversal_weight
from anomalib_defect_plugins.layers.image_scores import spread, top_mean
from anomalib_defect_plugins.layers.involution import Involution
from anomalib_defect_plugins.layers.median import MedianFilter
from anomalib_defect_plugins.layers.noise_injection import NoiseInjection
from anomalib_defect_plugins.layers.norms import NORMS
from anomalib_defect_plugins.layers.resize import FixedResize, Resize, enlarge
from anomalib_defect_plugins.layers.spade import Moments, Spade, at_size, blend, moments_of
from anomalib_defect_plugins.layers.texture_perceiving import TexturePerceivingModule, directional_maps
from anomalib_defect_plugins.layers.transposed_conv import NarrowTransposed

__all__ = [
    "NORMS",
    "ConvBlock",
    "Encoder",
    "FixedResize",
    "GradientReversal",
    "Involution",
    "MedianFilter",
    "Moments",
    "NarrowTransposed",
    "NoiseInjection",
    "Resize",
    "Spade",
    "TexturePerceivingModule",
    "at_size",
    "blend",
    "directional_maps",
    "enlarge",
    "feature_maps",
    "maps_at",
    "moments_of",
    "reversal_weight",
    "spread",
    "top_mean",
    "weights_from_checkpoint",
]
