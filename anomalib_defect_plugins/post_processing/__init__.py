"""Thresholds that are applied as they were chosen, with and without labels, and normalisation that preserves order."""

from anomalib_defect_plugins.post_processing.base import (
    DefectPostProcessor,
    OpeningPostProcessor,
    UnitOpeningPostProcessor,
    UnitPostProcessor,
)
from anomalib_defect_plugins.post_processing.label_free import (
    FixedPostProcessor,
    OtsuPostProcessor,
    ReferencePostProcessor,
    SigmaPostProcessor,
    unseen_views,
)
from anomalib_defect_plugins.post_processing.regions import RegionPostProcessor
from anomalib_defect_plugins.post_processing.thresholds import set_thresholds

__all__ = [
    "DefectPostProcessor",
    "FixedPostProcessor",
    "OpeningPostProcessor",
    "OtsuPostProcessor",
    "ReferencePostProcessor",
    "RegionPostProcessor",
    "SigmaPostProcessor",
    "UnitOpeningPostProcessor",
    "UnitPostProcessor",
    "set_thresholds",
    "unseen_views",
]
