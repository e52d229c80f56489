"""Generators of synthetic defects that need no training."""

from anomalib_defect_plugins.core.defect_generator import DefectGenerator
from anomalib_defect_plugins.generators.cutpaste import CutPasteDefects, CutPasteScarDefects
from anomalib_defect_plugins.generators.masks import LOCAL_KINDS, MASK_KINDS, random_masks
from anomalib_defect_plugins.generators.mixed import MixedDefects
from anomalib_defect_plugins.generators.noise import NoiseDefects
from anomalib_defect_plugins.generators.perturb import PerturbDefects, ShadingDefects
from anomalib_defect_plugins.generators.poisson import PoissonDefects
from anomalib_defect_plugins.generators.procedural import KINDS, ProceduralDefects, draw_defect
from anomalib_defect_plugins.plugins import Kind, hookimpl, registered
from anomalib_defect_plugins.plugins.hookspecs import Register

__all__ = [
    "KINDS",
    "LOCAL_KINDS",
    "MASK_KINDS",
    "CutPasteDefects",
    "CutPasteScarDefects",
    "DefectGenerator",
    "MixedDefects",
    "NoiseDefects",
    "PerturbDefects",
    "PoissonDefects",
    "ProceduralDefects",
    "ShadingDefects",
    "draw_defect",
    "random_masks",
]

_GENERATORS = (
    NoiseDefects,
    CutPasteDefects,
    CutPasteScarDefects,
    PoissonDefects,
    PerturbDefects,
    ShadingDefects,
    MixedDefects,
    ProceduralDefects,
)


@hookimpl
def register_defect_generators(register: Register) -> None:
    """Register the generators of this package."""
    for cls in _GENERATORS:
        register(cls, cls.name)


def __getattr__(name: str) -> type:
    """Return the registered generator class of this name, whichever plugin it comes from."""
    if not name.startswith("_"):
        for cls in registered(Kind.GENERATOR).values():
            if cls.__name__ == name:
                return cls
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
