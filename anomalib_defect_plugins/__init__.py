"""Surface-defect methods for anomalib, each a plugin.

The public names are imported on first use: torch imports this package at every start, to find its entry point, and must
not be slowed down.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from anomalib_defect_plugins.core.supervision import Supervision
    from anomalib_defect_plugins.data import (
        Codebrim,
        CrackForest,
        Dagm2007,
        DefectFolder,
        KolektorSdd,
        MagneticTile,
        TextureDefects,
        WithDefects,
        WithRegion,
        WithTiles,
        WoodDefects,
    )
    from anomalib_defect_plugins.generators import DefectGenerator
    from anomalib_defect_plugins.models.cutpaste import CutPaste
    from anomalib_defect_plugins.models.defectgan import DefectGan
    from anomalib_defect_plugins.models.htpgan import HtpGan
    from anomalib_defect_plugins.models.isugan import IsuGan
    from anomalib_defect_plugins.models.onestage import OneStage
    from anomalib_defect_plugins.models.sidn import Sidn
    from anomalib_defect_plugins.plugins import hookimpl

    __version__: str

_MODULES = {
    "Codebrim": "anomalib_defect_plugins.data",
    "CrackForest": "anomalib_defect_plugins.data",
    "CutPaste": "anomalib_defect_plugins.models.cutpaste",
    "Dagm2007": "anomalib_defect_plugins.data",
    "DefectFolder": "anomalib_defect_plugins.data",
    "DefectGan": "anomalib_defect_plugins.models.defectgan",
    "DefectGenerator": "anomalib_defect_plugins.generators",
    "HtpGan": "anomalib_defect_plugins.models.htpgan",
    "IsuGan": "anomalib_defect_plugins.models.isugan",
    "KolektorSdd": "anomalib_defect_plugins.data",
    "MagneticTile": "anomalib_defect_plugins.data",
    "OneStage": "anomalib_defect_plugins.models.onestage",
    "Sidn": "anomalib_defect_plugins.models.sidn",
    "Supervision": "anomalib_defect_plugins.core.supervision",
    "TextureDefects": "anomalib_defect_plugins.data",
    "WithDefects": "anomalib_defect_plugins.data",
    "WithRegion": "anomalib_defect_plugins.data",
    "WithTiles": "anomalib_defect_plugins.data",
    "WoodDefects": "anomalib_defect_plugins.data",
    "hookimpl": "anomalib_defect_plugins.plugins",
}

__all__ = [
    "Codebrim",
    "CrackForest",
    "CutPaste",
    "Dagm2007",
    "DefectFolder",
    "DefectGan",
    "DefectGenerator",
    "HtpGan",
    "IsuGan",
    "KolektorSdd",
    "MagneticTile",
    "OneStage",
    "Sidn",
    "Supervision",
    "TextureDefects",
    "WithDefects",
    "WithRegion",
    "WithTiles",
    "WoodDefects",
    "__version__",
    "hookimpl",
]


class _MovedModules:
    """Last finder of the import system: looks in the table of moved modules."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        del path, target
        if not fullname.startswith(f"{__name__}."):
            return None
        from anomalib_defect_plugins.core.moved_modules import find_moved

        return find_moved(fullname)


sys.meta_path.append(_MovedModules())


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("anomalib-defect-plugins")
    elif name in _MODULES:
        from importlib import import_module

        value = getattr(import_module(_MODULES[name]), name)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
