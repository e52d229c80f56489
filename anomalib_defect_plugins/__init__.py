"""Surface-defect methods for anomalib, each a plugin.

The public names are imported when they are first used: torch imports this package on every start, to find its entry
point, and must not wait for it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomalib_defect_plugins.data import CrackForest, TextureDefects
    from anomalib_defect_plugins.models.htpgan import HtpGan
    from anomalib_defect_plugins.plugins import hookimpl
    from anomalib_defect_plugins.supervision import Supervision

    __version__: str

__all__ = ["CrackForest", "HtpGan", "Supervision", "TextureDefects", "__version__", "hookimpl"]

_HOMES = {
    "CrackForest": "anomalib_defect_plugins.data",
    "HtpGan": "anomalib_defect_plugins.models.htpgan",
    "Supervision": "anomalib_defect_plugins.supervision",
    "TextureDefects": "anomalib_defect_plugins.data",
    "hookimpl": "anomalib_defect_plugins.plugins",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("anomalib-defect-plugins")
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
