"""Plugins: the hooks they implement, the manager that loads them, and the bridge that hands them to anomalib.

A plugin is a module with functions marked :data:`hookimpl` and one entry point of the group
``anomalib_defect_plugins`` that names the module. Importing this package loads neither torch nor anomalib.
"""

from typing import TYPE_CHECKING

from anomalib_defect_plugins.plugins.hookspecs import PROJECT_NAME, hookimpl, hookspec
from anomalib_defect_plugins.plugins.manager import Kind, Plugin, Registration, State

if TYPE_CHECKING:
    from anomalib_defect_plugins.plugins.bridge import PluginError, connect, loaded_plugins, registered, taken_names

__all__ = [
    "PROJECT_NAME",
    "Kind",
    "Plugin",
    "PluginError",
    "Registration",
    "State",
    "connect",
    "hookimpl",
    "hookspec",
    "loaded_plugins",
    "registered",
    "taken_names",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from anomalib_defect_plugins.plugins import bridge

        return getattr(bridge, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
