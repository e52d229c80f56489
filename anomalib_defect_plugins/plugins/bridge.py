"""Hands the plugins to anomalib: names for its functions, its command line and its benchmark.

anomalib looks a class up in three ways, and each needs something else:

- ``get_model("htpgan")`` and ``list_models()`` go through the direct subclasses of ``AnomalibModule``, which exist once
  they are imported;
- ``get_model({"class_path": "HtpGan"})``, ``get_datamodule`` and ``anomalib benchmark`` read attributes of
  ``anomalib.models`` and ``anomalib.data``;
- ``--model`` compares with the last part of the import path of every subclass, however deep. For ``--model htpgan``
  there is a class ``anomalib.models.htpgan`` below ``HtpGan`` that is only ever looked at: what the import path leads
  to is ``HtpGan`` itself.

Defect generators are ours, and so is the module that they are found in by name, ``anomalib_defect_plugins.generators``.
"""

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, version
from types import ModuleType

from anomalib_defect_plugins.core.environment import DISABLE_VARIABLE, disabled_names, strict
from anomalib_defect_plugins.core.errors import UserError
from anomalib_defect_plugins.core.import_hook import after_attempt, is_importing
from anomalib_defect_plugins.plugins import excepthook
from anomalib_defect_plugins.plugins.manager import (
    Host,
    Kind,
    Plugin,
    Registration,
    State,
    descendants,
    find_entry_points,
    load_plugins,
)

logger = logging.getLogger("anomalib_defect_plugins")

_plugins: list[Plugin] | None = None
_signs: list[type] = []
"""Keeps alive the classes that only carry a name: Python lists subclasses by weak reference."""


class PluginError(UserError, RuntimeError):
    """A plugin cannot be loaded, and the environment asks that this be an error."""


def connect() -> None:
    """Load the plugins and hand them to anomalib; once, and as soon as nothing that they need is half imported.

    Raises:
        PluginError: if a plugin cannot be loaded and ``ANOMALIB_DEFECT_PLUGINS_STRICT`` is set; without it nothing is
            raised, whatever goes wrong.
    """
    global _plugins
    if _plugins is not None:
        return
    try:
        found = find_entry_points()
        unfinished = _first_unfinished({"anomalib", *(entry.module.partition(".")[0] for entry in found)})
        if unfinished is None:
            _plugins = []  # importing anomalib may come back here
            _plugins = _connect(found)
    except Exception as error:
        if strict():
            raise
        logger.warning("anomalib-defect-plugins gives anomalib nothing: %s: %s", type(error).__name__, error)
        return
    if unfinished is None:
        _report(_plugins or [])
    else:
        after_attempt(unfinished, connect)


def loaded_plugins() -> list[Plugin]:
    """Every plugin that was found, with its state; connects first if that has not happened."""
    connect()
    return list(_plugins or [])


def registered(kind: Kind) -> dict[str, type]:
    """The classes of one kind that loaded plugins registered, by name."""
    return {
        registration.name: registration.cls
        for plugin in loaded_plugins()
        for registration in plugin.registrations
        if plugin.state is State.LOADED and registration.kind is kind
    }


def taken_names(kind: Kind) -> dict[str, str]:
    """Names of one kind that a new plugin cannot have, in lower case, and who has each: anomalib or a plugin."""
    plugins = loaded_plugins()
    host = _anomalib()
    taken = dict.fromkeys(host.taken[kind], host.label)
    for plugin in plugins:
        for registration in plugin.registrations:
            taken |= {name: str(plugin) for claimed, name in registration.claims() if claimed is kind}
    return taken


def _connect(found: list[EntryPoint]) -> list[Plugin]:
    if excepthook.is_anomalib_command():
        excepthook.install_excepthook()
    switched_off = disabled_names()
    host = Host("anomalib", {}, {}) if "all" in switched_off else _anomalib()
    plugins = load_plugins(found, switched_off, host)
    for plugin in plugins:
        if plugin.state is State.LOADED:
            _publish(plugin)
    _hide(_unwanted(plugins, host), host)
    return plugins


def _first_unfinished(packages: set[str]) -> str | None:
    """The outermost module of ``packages`` that is being imported."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages and is_importing(module):
            return name
    return None


def _anomalib() -> Host:
    import anomalib.data
    from anomalib.models.components import AnomalibModule

    from anomalib_defect_plugins.core.defect_generator import DefectGenerator

    bases = {
        Kind.MODEL: AnomalibModule,
        Kind.DATA: anomalib.data.AnomalibDataModule,
        Kind.GENERATOR: DefectGenerator,
    }
    taken = {
        kind: {name.lower() for name in vars(namespace) if not name.startswith("_")}
        | {cls.__name__.lower() for cls in descendants(bases[kind]) if _is_anomalibs(cls)}
        for kind, namespace in _namespaces().items()
    }
    return Host(f"anomalib {version('anomalib')}", bases, taken)


def _namespaces() -> dict[Kind, ModuleType]:
    """The modules that classes of each kind are found in by name."""
    import anomalib.data
    import anomalib.models

    from anomalib_defect_plugins.plugins import generators

    return {Kind.MODEL: anomalib.models, Kind.DATA: anomalib.data, Kind.GENERATOR: generators}


def _is_anomalibs(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "anomalib"


def _publish(plugin: Plugin) -> None:
    """Give out the names of one plugin, all or none."""
    namespaces = _namespaces()
    items = plugin.registrations
    try:
        signs = [_make_sign(item, namespaces[item.kind].__name__) for item in items if item.name != item.cls.__name__]
    except Exception as error:  # noqa: BLE001  (a class may forbid subclasses in any way it likes)
        plugin.fail(f"{type(error).__name__}: {error}")
        return
    _signs.extend(signs)
    for item in items:
        setattr(namespaces[item.kind], item.cls.__name__, item.cls)
        setattr(namespaces[item.kind], item.name, item.cls)


def _make_sign(registration: Registration, module: str) -> type:
    """A class that is never used, whose import path ends in the registered name and leads to the registered class."""
    cls = registration.cls
    return type(cls)(registration.name, (cls,), {"__module__": module, "__doc__": cls.__doc__})


def _unwanted(plugins: Iterable[Plugin], host: Host) -> set[type]:
    """Classes that must not be found by name.

    Those of failed plugins, which importing them has put among anomalib's subclasses, and those that a loaded plugin
    happens to bring under a name that is anomalib's or that another plugin registered.
    """
    plugins = list(plugins)
    registrations = [item for plugin in plugins if plugin.state is State.LOADED for item in plugin.registrations]
    wanted = {item.cls for item in registrations}
    taken = {name for names in host.taken.values() for name in names}
    taken |= {name for item in registrations for _, name in item.claims()}
    unwanted = set()
    for plugin in plugins:
        if plugin.state is State.FAILED:
            unwanted |= plugin.brought | {item.cls for item in plugin.registrations}
        else:
            unwanted |= {cls for cls in plugin.brought if cls.__name__.lower() in taken}
    return {cls for cls in unwanted - wanted if not _is_anomalibs(cls)}


def _hide(unwanted: set[type], host: Host) -> None:
    """Leave ``unwanted`` out of what anomalib and jsonargparse see when they ask for subclasses.

    The classes themselves stay as they are, and work by their full import path.
    """

    def visible(cls: type) -> list[type]:
        found: list[type] = []
        below: list[type] = type.__subclasses__(cls)
        for sub in below:
            found.extend(visible(sub) if sub in unwanted else [sub])
        return found

    for base in host.bases.values() if unwanted else ():
        base.__subclasses__ = classmethod(visible)  # type: ignore[assignment, method-assign]


def _report(plugins: Iterable[Plugin]) -> None:
    """Say in one line each what is wrong; nothing in worker processes, since the main process has said it."""
    lines = [f"{plugin} is skipped: {plugin.reason}" for plugin in plugins if plugin.state is State.FAILED]
    if lines and strict():
        raise PluginError("; ".join(lines))
    known = {"all"} | {name.lower() for plugin in plugins for name in (plugin.name, plugin.distribution)}
    if unknown := sorted(disabled_names() - known):
        lines.append(f"{DISABLE_VARIABLE} names no plugin: {', '.join(unknown)}")
    if _is_main_process():
        for line in lines:
            logger.warning("%s", line)


def _is_main_process() -> bool:
    """Whether this is no worker of a pool or a loader, and no further rank of a distributed run."""
    # A spawned worker runs the main module, and so comes here, before it knows its parent; its name it knows.
    return multiprocessing.current_process().name == "MainProcess" and os.environ.get("LOCAL_RANK", "0") == "0"
