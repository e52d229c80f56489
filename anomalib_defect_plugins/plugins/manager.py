"""Finds plugins, loads them one by one and validates their classes. Imports neither torch nor anomalib.

A plugin is accepted as a whole: if anything is wrong with it, none of its classes is used, and ``reason`` says why.
"""

import importlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import EntryPoint, entry_points

import pluggy

from anomalib_defect_plugins.core.environment import DISABLE_VARIABLE
from anomalib_defect_plugins.plugins import hookspecs

OWN_DISTRIBUTION = "anomalib-defect-plugins"
MAX_REASON_LENGTH = 400


class Kind(str, Enum):
    """Kind of a registered class."""

    MODEL = "model"
    DATA = "data"
    GENERATOR = "generator"


class State(str, Enum):
    """Outcome of loading a plugin."""

    LOADED = "loaded"
    DISABLED = "disabled"
    FAILED = "failed"


HOOKS = {
    "register_models": Kind.MODEL,
    "register_datamodules": Kind.DATA,
    "register_defect_generators": Kind.GENERATOR,
}


class RegistrationError(Exception):
    """A plugin registers a class that is not acceptable."""


@dataclass(frozen=True)
class Registration:
    """A class that a plugin registers, and its name."""

    kind: Kind
    name: str
    cls: type

    def claims(self) -> set[tuple[Kind, str]]:
        """Names that this registration reserves, lower case: its own and its class's."""
        return {(self.kind, self.name.lower()), (self.kind, self.cls.__name__.lower())}


@dataclass
class Plugin:
    """An entry point and the outcome of loading it."""

    name: str
    distribution: str
    version: str
    state: State = State.LOADED
    reason: str = ""
    registrations: list[Registration] = field(default_factory=list)
    new_classes: set[type] = field(default_factory=set)
    """Every subclass of the host's bases that was created while the plugin was loaded."""

    def __str__(self) -> str:
        return f"plugin '{self.name}' of {self.distribution} {self.version}"

    def fail(self, reason: str) -> None:
        """Mark the plugin as failed; the first reason is kept."""
        if self.state is not State.FAILED:
            self.state, self.reason = State.FAILED, shorten(reason)


@dataclass(frozen=True)
class Host:
    """The application that plugins are loaded into."""

    label: str
    """Name and version, such as ``anomalib 2.7.0``."""
    bases: Mapping[Kind, type]
    """Required base class of each kind; kinds that are missing accept any class."""
    taken: Mapping[Kind, set[str]]
    """Names of each kind that the host itself uses, in lower case."""


def shorten(text: str) -> str:
    """Collapse to one line of at most :data:`MAX_REASON_LENGTH` characters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON_LENGTH else line[: MAX_REASON_LENGTH - 1] + "…"


def find_entry_points() -> list[EntryPoint]:
    """Return the entry points of plugins: built-in ones first, then by distribution and name."""
    found = entry_points(group=hookspecs.PROJECT_NAME)
    return sorted(found, key=lambda entry: (not _is_own(_distribution(entry)[0]), *_distribution(entry), entry.name))


def load_plugins(found: Iterable[EntryPoint], switched_off: set[str], host: Host) -> list[Plugin]:
    """Load every plugin in isolation, then resolve conflicts between their names. Never raises for a plugin's error.

    Args:
        found: Entry points of the plugins.
        switched_off: Names of plugins or distributions to skip, in lower case; ``all`` skips every one.
        host: The application to load them into.

    Returns:
        One record per entry point, in the same order.
    """
    plugins = []
    for entry in found:
        plugin = Plugin(entry.name, *_distribution(entry))
        plugins.append(plugin)
        if switched_off & {"all", plugin.name.lower(), plugin.distribution.lower()}:
            plugin.state = State.DISABLED
        else:
            _load(plugin, entry, host)
    settle_claims(plugins)
    return plugins


def is_own(plugin: Plugin) -> bool:
    """Whether the plugin is built into this distribution."""
    return _is_own(plugin.distribution)


def settle_claims(plugins: Iterable[Plugin]) -> None:
    """Fail all plugins that claim the same name, except a built-in one.

    The order in which third-party plugins are found is arbitrary, so neither of two may win.
    """
    claimants: dict[tuple[Kind, str], list[Plugin]] = defaultdict(list)
    for plugin in plugins:
        if plugin.state is State.LOADED:
            for claim in set().union(*(registration.claims() for registration in plugin.registrations)):
                claimants[claim].append(plugin)
    for (kind, name), rivals in sorted(claimants.items()):
        if len(rivals) > 1:
            _refuse_rivals(rivals, f"the {kind.value} name '{name}'")


def _refuse_rivals(rivals: list[Plugin], what: str) -> None:
    keeper = next((plugin for plugin in rivals if is_own(plugin)), None)
    for plugin in rivals:
        others = " and ".join(str(other) for other in rivals if other is not plugin)
        if keeper is None:
            plugin.fail(
                f"{what} is claimed by {others} too, so neither is loaded; uninstall one, "
                f"or name its distribution in {DISABLE_VARIABLE}"
            )
        elif plugin is not keeper:
            plugin.fail(f"{what} is taken by {keeper}")


def _load(plugin: Plugin, entry: EntryPoint, host: Host) -> None:
    before = _descendants(host)
    try:
        plugin.registrations = _collect(entry, host)
    except KeyboardInterrupt:
        raise
    except RegistrationError as error:
        plugin.fail(str(error))
    except BaseException as error:  # noqa: BLE001  (SystemExit and panics of extensions are a plugin's failure too)
        plugin.fail(f"{type(error).__name__}: {error}")
    plugin.new_classes = _descendants(host) - before


def _collect(entry: EntryPoint, host: Host) -> list[Registration]:
    """Import the plugin and call its hooks, through a pluggy manager that no other plugin shares."""
    module = entry.load()
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        msg = f"{entry.value} implements no hook: none of {', '.join(HOOKS)} marked with @hookimpl"
        raise RegistrationError(msg)
    registrations: list[Registration] = []
    for hook, kind in HOOKS.items():
        getattr(manager.hook, hook)(register=_register_into(registrations, kind, host))
    return registrations


def _register_into(registrations: list[Registration], kind: Kind, host: Host) -> Callable[..., None]:
    """Return the ``register`` callback for one hook of one plugin."""

    def register(cls: type, name: str | None = None) -> None:
        _check_class(cls, kind, host)
        registration = Registration(kind, name if name is not None else default_name(cls, kind), cls)
        _check_name(registration, registrations, host)
        registrations.append(registration)

    return register


def default_name(cls: type, kind: Kind) -> str:
    """Return the class name in lower case; that of a data module as it is, which is how anomalib names data modules."""
    return cls.__name__ if kind is Kind.DATA else cls.__name__.lower()


def _check_class(cls: type, kind: Kind, host: Host) -> None:
    base = host.bases.get(kind, object)
    label = f"{getattr(cls, '__module__', '?')}.{getattr(cls, '__qualname__', cls)}"
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        msg = f"the {kind.value} {label} is no subclass of {base.__name__}"
    elif inspect.isabstract(cls):
        msg = (
            f"the {kind.value} {label} does not implement {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}"
        )
    elif not _is_importable(cls):
        msg = f"the {kind.value} {label} cannot be imported by that path, so a configuration cannot name it"
    else:
        return
    raise RegistrationError(msg)


def _is_importable(cls: type) -> bool:
    return getattr(importlib.import_module(cls.__module__), cls.__qualname__, None) is cls


def _check_name(registration: Registration, registrations: Iterable[Registration], host: Host) -> None:
    kind, name = registration.kind, registration.name
    if not (isinstance(name, str) and name.isidentifier()):
        msg = f"the {kind.value} name {name!r} is not an identifier"
        raise RegistrationError(msg)
    claims = registration.claims()
    for _, claimed in sorted(claims):
        if claimed in host.taken.get(kind, ()):
            msg = f"the {kind.value} name '{claimed}' is taken by {host.label}"
            raise RegistrationError(msg)
    if any(claims & other.claims() for other in registrations):
        msg = f"the {kind.value} name '{name}' is registered twice"
        raise RegistrationError(msg)


def _descendants(host: Host) -> set[type]:
    return set().union(*(descendants(base) for base in host.bases.values()))


def descendants(cls: type) -> set[type]:
    """Return all subclasses of ``cls``, direct or not, even if ``cls`` overrides ``__subclasses__``."""
    below: set[type] = set(type.__subclasses__(cls))
    return below.union(*(descendants(sub) for sub in below))


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist else ("unknown distribution", "")


def _is_own(distribution: str) -> bool:
    return distribution.lower().replace("_", "-") == OWN_DISTRIBUTION
