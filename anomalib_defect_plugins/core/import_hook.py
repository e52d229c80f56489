"""Runs a callback once a module is fully imported, whatever state its import is in. Standard library only."""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def after_import(name: str, callback: Callable[[], None]) -> None:
    """Call ``callback`` once, as soon as the module ``name`` is fully imported.

    The import may lie ahead, be in progress (the caller may even run inside it) or be complete. While the import keeps
    failing, the callback keeps waiting.
    """
    module = sys.modules.get(name)
    if module is None:
        sys.meta_path.insert(0, _Finder(name, callback))
    elif is_importing(module):
        _watch(module.__spec__, lambda success: callback() if success else after_import(name, callback))
    else:
        callback()


def after_attempt(name: str, callback: Callable[[], None]) -> None:
    """Call ``callback`` once when the import of ``name`` that is in progress ends, successful or not."""
    _watch(sys.modules[name].__spec__, lambda _: callback())


def is_importing(module: ModuleType | None) -> bool:
    """Whether the body of ``module`` is being executed right now."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


class _Finder:
    """Meta-path finder for one module that delegates to the other finders until the module is imported."""

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
            _watch(spec, self._on_attempt)
        return spec

    def _on_attempt(self, success: bool) -> None:
        if success and self in sys.meta_path:
            sys.meta_path.remove(self)
            self.callback()


def _watch(spec: Any, on_end: Callable[[bool], None]) -> None:
    """Call ``on_end`` with the outcome when the module of ``spec`` has been executed.

    The import system clears ``spec._initializing`` at that moment and no other. There is no public hook for the end of
    an import that is already in progress.
    """
    plain = type(spec)

    class WatchedSpec(plain):  # type: ignore[misc, valid-type]
        @property
        def _initializing(self) -> bool:
            return bool(self.__dict__.get("_initializing", False))

        @_initializing.setter
        def _initializing(self, value: bool) -> None:
            if value:
                self.__dict__["_initializing"] = value
                return
            self.__class__ = plain
            self._initializing = value  # through an earlier watch, if there is one
            success = self.name in sys.modules
            if success:
                _bind_to_parent(self.name)
            on_end(success)

    spec.__class__ = WatchedSpec


def _bind_to_parent(name: str) -> None:
    """Make ``package.module`` accessible now; the import system does the same a moment later."""
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, sys.modules[name])
