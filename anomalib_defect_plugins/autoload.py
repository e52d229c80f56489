"""Waits for anomalib to be imported, then hands it the plugins. Standard library only.

anomalib 2.7 has no entry points of its own, but torch, which anomalib always imports, calls those of the group
``torch.backends`` at the end of its import. torch is then usually imported *by* a half-imported anomalib, so waiting
means more than a hook on an import still to come: see :func:`after_import`.
"""

import logging
import sys
from importlib.util import find_spec

from anomalib_defect_plugins.core.environment import disabled_names, strict
from anomalib_defect_plugins.core.import_hook import after_import

logger = logging.getLogger("anomalib_defect_plugins")


def autoload() -> None:
    """Entry point that torch calls: arrange that anomalib gets the plugins once it is imported."""
    try:
        if "all" not in disabled_names():
            after_import("anomalib.models", _connect)
            after_import("anomalib.data", _answer_for_data)
    except Exception as error:  # noqa: BLE001  (whatever happens here must not fail `import torch`)
        logger.debug("autoload failed: %r", error)


def _answer_for_data() -> None:
    """Let ``anomalib.data`` find the data modules of plugins.

    Who imports ``anomalib.data`` but no models, such as a deployed inferencer, should not wait for them; so the plugins
    are loaded when a name is asked for that is not there.
    """
    namespace = vars(sys.modules["anomalib.data"])

    def answer(name: str) -> object:
        if not name.startswith("_") and find_spec(f"anomalib.data.{name}") is None:
            _connect()
        if name in namespace:
            return namespace[name]
        msg = f"module 'anomalib.data' has no attribute {name!r}"
        raise AttributeError(msg)

    namespace.setdefault("__getattr__", answer)


def _connect() -> None:
    try:
        from anomalib_defect_plugins.plugins.bridge import connect
    except Exception as error:
        if strict():
            raise
        logger.warning("anomalib-defect-plugins gives anomalib nothing: %s: %s", type(error).__name__, error)
    else:
        connect()
