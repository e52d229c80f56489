"""Registers the classes of plugins with anomalib: for its functions, its command line and its benchmark.

anomalib looks a class up in three ways, and each needs different preparation:

- ``get_model("mymodel")`` and ``list_models()`` iterate over the direct subclasses of ``AnomalibModule``, which exist
  once they are imported;
- ``get_model({"class_path": "MyModel"})``, ``get_datamodule`` and ``anomalib benchmark`` read attributes of
  ``anomalib.models`` and ``anomalib.data``;
- ``--model`` compares with the last part of the import path of every subclass, direct or not. For ``--model mymodel``
  a class ``anomalib.models.mymodel`` is created below ``MyModel``; it only carries the name, and its import path leads
  to ``MyModel`` itself.

Defect generators are found in :mod:`anomalib_defect_plugins.plugins.generators`.
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
from anomalib_defect_plugins.plugins import excepthook, seeding
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
_name_aliases: list[type] = []
"""Keeps the classes that only carry a name alive: Python holds subclasses by weak reference."""


class PluginError(UserError, RuntimeError):
    """A plugin failed to load, and the environment makes that an error."""


def connect() -> None:
    """Load the plugins and register them with anomalib; once, and not before all packages they need are imported.

    Raises:
        PluginError: If a plugin fails to load and ``ANOMALIB_DEFECT_PLUGINS_STRICT`` is set. Without it nothing is
            ever raised.
    """
    global _plugins
    if _plugins is not None:
        return
    try:
        found = find_entry_points()
        unfinished = _first_unfinished({"anomalib", *(entry.module.partition(".")[0] for entry in found)})
        if unfinished is None:
            _plugins = []  # importing anomalib may re-enter this function
            _plugins = _connect(found)
    except Exception as error:
        if strict():
            raise
        logger.warning("anomalib-defect-plugins is not available: %s: %s", type(error).__name__, error)
        return
    if unfinished is None:
        _report(_plugins or [])
    else:
        after_attempt(unfinished, connect)


def loaded_plugins() -> list[Plugin]:
    """Return every plugin that was found, with its state; connects first if necessary."""
    connect()
    return list(_plugins or [])


def registered(kind: Kind) -> dict[str, type]:
    """Return the registered classes of one kind by name."""
    return {
        registration.name: registration.cls
        for plugin in loaded_plugins()
        for registration in plugin.registrations
        if plugin.state is State.LOADED and registration.kind is kind
    }


def taken_names(kind: Kind) -> dict[str, str]:
    """Return the names of one kind that are in use, in lower case, and the owner of each: anomalib or a plugin."""
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
    if "all" not in switched_off:
        seeding.seed_commands(lambda: (*registered(Kind.MODEL).values(), *registered(Kind.DATA).values()))
    return plugins


def _first_unfinished(packages: set[str]) -> str | None:
    """Return the outermost module of ``packages`` that is being imported."""
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
    """Return the modules in which the classes of each kind are found by name."""
    import anomalib.data
    import anomalib.models

    from anomalib_defect_plugins.plugins import generators

    return {Kind.MODEL: anomalib.models, Kind.DATA: anomalib.data, Kind.GENERATOR: generators}


def _is_anomalibs(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "anomalib"


def _publish(plugin: Plugin) -> None:
    """Publish the names of one plugin, all or none."""
    namespaces = _namespaces()
    items = plugin.registrations
    try:
        name_aliases = [
            _make_name_alias(item, namespaces[item.kind].__name__) for item in items if item.name != item.cls.__name__
        ]
    except Exception as error:  # noqa: BLE001  (a class may forbid subclasses in any way)
        plugin.fail(f"{type(error).__name__}: {error}")
        return
    _name_aliases.extend(name_aliases)
    for item in items:
        setattr(namespaces[item.kind], item.cls.__name__, item.cls)
        setattr(namespaces[item.kind], item.name, item.cls)


def _make_name_alias(registration: Registration, module: str) -> type:
    """Create a class that is never instantiated: its import path ends in the registered name and leads to the class."""
    cls = registration.cls
    return type(cls)(registration.name, (cls,), {"__module__": module, "__doc__": cls.__doc__})


def _unwanted(plugins: Iterable[Plugin], host: Host) -> set[type]:
    """Return the classes that must not be found by name.

    These are the classes of failed plugins, which their import has made subclasses of anomalib's, and unregistered
    classes of loaded plugins whose name belongs to anomalib or to a registered class.
    """
    plugins = list(plugins)
    registrations = [item for plugin in plugins if plugin.state is State.LOADED for item in plugin.registrations]
    wanted = {item.cls for item in registrations}
    taken = {name for names in host.taken.values() for name in names}
    taken |= {name for item in registrations for _, name in item.claims()}
    unwanted = set()
    for plugin in plugins:
        if plugin.state is State.FAILED:
            unwanted |= plugin.new_classes | {item.cls for item in plugin.registrations}
        else:
            unwanted |= {cls for cls in plugin.new_classes if cls.__name__.lower() in taken}
    return {cls for cls in unwanted - wanted if not _is_anomalibs(cls)}


def _hide(unwanted: set[type], host: Host) -> None:
    """Hide classes from anomalib and jsonargparse, which look for subclasses.

    The classes themselves are unchanged and work by their full import path.
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
    """Log one line per problem, in the main process only."""
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
    """Whether this process is neither a worker of a pool or loader nor a further rank of a distributed run."""
    # A spawned worker runs the main module, and so this code, before its parent process is set, but after its name.
    return multiprocessing.current_process().name == "MainProcess" and os.environ.get("LOCAL_RANK", "0") == "0"
