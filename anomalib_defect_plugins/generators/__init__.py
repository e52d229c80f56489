"""Sources of synthetic defects."""

from anomalib_defect_plugins.generators.procedural import KINDS, draw_defect

__all__ = ["KINDS", "draw_defect"]
