"""Entry point of torch: registers the plugins once anomalib has been imported. Standard library only.

anomalib 2.7 has no entry points, but torch, which anomalib always imports, calls those of the group ``torch.backends``
at the end of its own import. At that time anomalib is usually half imported itself; see
:func:`~anomalib_defect_plugins.core.import_hook.after_import`.
"""

import logging
import sys
from importlib.util import find_spec

from anomalib_defect_plugins.core.environment import disabled_names, strict
from anomalib_defect_plugins.core.import_hook import after_import
from anomalib_defect_plugins.core.third_party_warnings import silence

logger = logging.getLogger("anomalib_defect_plugins")


def autoload() -> None:
    """Arrange for the plugins to be registered once anomalib is imported. Called by torch."""
    try:
        if "all" not in disabled_names():
            silence()
            after_import("anomalib.models", _connect)
            after_import("anomalib.data", _resolve_data_modules)
    except Exception as error:  # noqa: BLE001  (nothing here may break `import torch`)
        logger.debug("autoload failed: %r", error)


def _resolve_data_modules() -> None:
    """Make ``anomalib.data`` find the data modules of plugins.

    Programs that import ``anomalib.data`` but no models, such as a deployed inferencer, should not wait for the
    plugins, so these are loaded on the first access to an unknown name.
    """
    namespace = vars(sys.modules["anomalib.data"])

    def resolve(name: str) -> object:
        if not name.startswith("_") and find_spec(f"anomalib.data.{name}") is None:
            _connect()
        if name in namespace:
            return namespace[name]
        msg = f"module 'anomalib.data' has no attribute {name!r}"
        raise AttributeError(msg)

    namespace.setdefault("__getattr__", resolve)


def _connect() -> None:
    try:
        from anomalib_defect_plugins.plugins.bridge import connect
    except Exception as error:
        if strict():
            raise
        logger.warning("anomalib-defect-plugins is not available: %s: %s", type(error).__name__, error)
    else:
        connect()
