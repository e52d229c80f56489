"""Waits for anomalib to be imported, then hands it the plugins. Standard library only.

anomalib 2.7 has no entry points of its own, but torch, which anomalib always imports, calls those of the group
``torch.backends`` at the end of its import. torch is then usually imported *by* a half-imported anomalib, so waiting
means more than a hook on an import still to come: see :func:`after_import`.
"""

import logging
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

DISABLE_VARIABLE = "ANOMALIB_DEFECT_PLUGINS_DISABLE"
"""Environment variable: names of plugins that are not loaded, separated by commas; ``all`` for everything here."""

STRICT_VARIABLE = "ANOMALIB_DEFECT_PLUGINS_STRICT"
"""Environment variable: ``1`` makes a plugin that cannot be loaded an error."""

logger = logging.getLogger("anomalib_defect_plugins")


def autoload() -> None:
    """Entry point that torch calls: arrange that anomalib gets the plugins once it is imported."""
    try:
        if "all" not in disabled_names():
            after_import("anomalib.models", _connect)
            after_import("anomalib.data", _answer_for_data)
    except Exception as error:  # noqa: BLE001  (whatever happens here must not fail `import torch`)
        logger.debug("autoload failed: %r", error)


def disabled_names() -> set[str]:
    """Names of plugins that the environment switches off, in lower case."""
    return {name.strip().lower() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()}


def strict() -> bool:
    """Whether the environment asks that a plugin that cannot be loaded be an error."""
    return os.environ.get(STRICT_VARIABLE, "") not in {"", "0"}


def after_import(name: str, callback: Callable[[], None]) -> None:
    """Call ``callback`` once, as soon as the module ``name`` is imported completely.

    Works whether the import is still to come, under way (the caller may run in the middle of it) or done. While the
    import keeps failing, the callback keeps waiting.
    """
    module = sys.modules.get(name)
    if module is None:
        sys.meta_path.insert(0, _Finder(name, callback))
    elif is_importing(module):
        _watch(module.__spec__, lambda success: callback() if success else after_import(name, callback))
    else:
        callback()


def after_attempt(name: str, callback: Callable[[], None]) -> None:
    """Call ``callback`` once, when the import of the module ``name`` that is under way ends, well or badly."""
    _watch(sys.modules[name].__spec__, lambda _: callback())


def is_importing(module: ModuleType | None) -> bool:
    """Whether the body of ``module`` is being run at this moment."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


class _Finder:
    """Finds one module with the help of the other finders, and stays until that module is imported."""

    def __init__(self, name: str, callback: Callable[[], None]) -> None:
        self.name = name
        self.callback = callback
        self.searching = False

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        del path, target
        if fullname != self.name or self.searching:
            return None
        self.searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None:
            _watch(spec, self._tried)
        return spec

    def _tried(self, success: bool) -> None:
        if success and self in sys.meta_path:
            sys.meta_path.remove(self)
            self.callback()


def _watch(spec: ModuleSpec, ended: Callable[[bool], None]) -> None:
    """Call ``ended`` when the module of ``spec`` has been run, with whether it ran without an error.

    The import system clears ``spec._initializing`` at that moment, and at no other. Nothing public tells when an import
    that is already under way ends.
    """
    plain = type(spec)

    class WatchedSpec(plain):
        @property
        def _initializing(self) -> bool:
            return self.__dict__.get("_initializing", False)

        @_initializing.setter
        def _initializing(self, value: bool) -> None:
            if value:
                self.__dict__["_initializing"] = value
                return
            self.__class__ = plain
            self._initializing = value  # through a watch set earlier, if there is one
            success = self.name in sys.modules
            if success:
                _bind_to_parent(self.name)
            ended(success)

    spec.__class__ = WatchedSpec


def _bind_to_parent(name: str) -> None:
    """Make ``package.module`` work now; the import system does the same a moment later."""
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, sys.modules[name])


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
