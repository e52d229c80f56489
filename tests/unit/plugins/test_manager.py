"""Loading plugins one by one, for a host without anomalib and torch."""

import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from plugin_packages import PluginPackages

from anomalib_defect_plugins.plugins import Kind, Plugin, Registration, State
from anomalib_defect_plugins.plugins.manager import Host, descendants, load_plugins, settle_claims

BASES = "class Model: pass\nclass Data: pass\n"
TEMPLATE = """
    from host_of_test import Data, Model

    from anomalib_defect_plugins.plugins import hookimpl


    class {model}(Model):
        pass


    @hookimpl
    def register_models(register):
        register({model}, {name!r})
"""


@pytest.fixture
def plugin_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginPackages]:
    """Distributions that this process can import during the test only."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "host_of_test.py").write_text(BASES)
    monkeypatch.syspath_prepend(site)
    modules = set(sys.modules)
    yield PluginPackages(site)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def host(plugin_packages: PluginPackages) -> Host:
    """A host with a model ``padim``."""
    module = importlib.import_module("host_of_test")
    bases = {Kind.MODEL: module.Model, Kind.DATA: module.Data}
    return Host("host 9.9", bases, {Kind.MODEL: {"padim"}, Kind.DATA: set()})


def install_model(
    plugin_packages: PluginPackages, distribution: str, model: str, name: str | None = None
) -> EntryPoint:
    return plugin_packages.install(distribution, TEMPLATE.format(model=model, name=name))


def test_a_model_is_named_after_its_class_in_lower_case(plugin_packages: PluginPackages, host: Host) -> None:
    (plugin,) = load_plugins([install_model(plugin_packages, "some-nets", "SomeNet")], set(), host)
    assert (plugin.name, plugin.distribution, plugin.version) == ("some-nets", "some-nets", "1.0")
    assert plugin.state is State.LOADED
    ((kind, name, cls),) = [(item.kind, item.name, item.cls) for item in plugin.registrations]
    assert (kind, name, cls.__name__) == (Kind.MODEL, "somenet", "SomeNet")


def test_a_plugin_may_choose_another_name(plugin_packages: PluginPackages, host: Host) -> None:
    (plugin,) = load_plugins([install_model(plugin_packages, "some-nets", "SomeNet", "other")], set(), host)
    assert [item.name for item in plugin.registrations] == ["other"]


def test_a_data_module_keeps_the_name_of_its_class_and_a_generator_is_named_in_lower_case(
    plugin_packages: PluginPackages, host: Host
) -> None:
    source = """
        from host_of_test import Data

        from anomalib_defect_plugins.plugins import hookimpl


        class SomeData(Data):
            pass


        class Scratch:
            pass


        @hookimpl
        def register_datamodules(register):
            register(SomeData)


        @hookimpl
        def register_defect_generators(register):
            register(Scratch)
    """
    (plugin,) = load_plugins([plugin_packages.install("some-data", source)], set(), host)
    assert [(item.kind, item.name) for item in plugin.registrations] == [
        (Kind.DATA, "SomeData"),
        (Kind.GENERATOR, "scratch"),
    ]


BEGIN = """
    from abc import ABC, abstractmethod

    from host_of_test import Model

    from anomalib_defect_plugins.plugins import hookimpl


    class Thing(Model):
        pass


    class NoModel:
        pass


    class Unfinished(Model, ABC):
        @abstractmethod
        def forward(self): ...


    @hookimpl
    def register_models(register):
        {body}
"""

FAILURES = {
    "raises at import": ("raise OSError('no\\n licence')", "OSError: no licence"),
    "exits at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "cannot be parsed": ("def", "SyntaxError"),
    "marks no hook": ("def register_models(register): pass", "implements no hook"),
    "misspells a hook": (BEGIN.replace("register_models", "register_model"), "unknown hook 'register_model'"),
    "raises in its hook": (BEGIN.format(body="1 / 0"), "ZeroDivisionError"),
    "registers no model": (
        BEGIN.format(body="register(NoModel)"),
        "the model faulty.NoModel is no subclass of Model",
    ),
    "registers no class": (BEGIN.format(body="register('Thing')"), "is no subclass of Model"),
    "registers an unfinished class": (
        BEGIN.format(body="register(Unfinished)"),
        "the model faulty.Unfinished does not implement forward",
    ),
    "registers a class without a path": (
        BEGIN.format(body="register(type('Elsewhere', (Model,), {}))"),
        "faulty.Elsewhere cannot be imported by that path",
    ),
    "takes a name of the host": (TEMPLATE.format(model="Padim", name=None), "'padim' is taken by host 9.9"),
    "takes a name of the host for another class": (
        BEGIN.format(body="register(Thing, 'PaDiM')"),
        "'padim' is taken by host 9.9",
    ),
    "registers an invalid name": (BEGIN.format(body="register(Thing, 'a-b')"), "'a-b' is not an identifier"),
    "registers a name twice": (
        BEGIN.format(body="register(Thing); register(Thing, 'thing')"),
        "the model name 'thing' is registered twice",
    ),
}


@pytest.mark.parametrize(("source", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_plugin_that_fails_has_a_one_line_reason_and_does_not_affect_others(
    plugin_packages: PluginPackages, host: Host, source: str, reason: str
) -> None:
    found = [plugin_packages.install("faulty", source), install_model(plugin_packages, "some-nets", "SomeNet")]
    failed, loaded = load_plugins(found, set(), host)
    assert failed.state is State.FAILED
    assert reason in failed.reason
    assert "\n" not in failed.reason
    assert failed.registrations == []
    assert loaded.state is State.LOADED


def test_the_classes_of_a_failed_plugin_are_recorded(plugin_packages: PluginPackages, host: Host) -> None:
    source = "from host_of_test import Model\nclass Leftover(Model): pass\nraise ValueError(Leftover)"
    (plugin,) = load_plugins([plugin_packages.install("faulty", source)], set(), host)
    assert plugin.new_classes == descendants(host.bases[Kind.MODEL])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_plugins_that_claim_the_same_name_both_fail(
    plugin_packages: PluginPackages, host: Host, order: tuple[int, int]
) -> None:
    found = [install_model(plugin_packages, "alpha", "SomeNet"), install_model(plugin_packages, "beta", "Somenet")]
    plugins = {plugin.name: plugin for plugin in load_plugins([found[index] for index in order], set(), host)}
    assert {plugin.state for plugin in plugins.values()} == {State.FAILED}
    assert "'somenet' is claimed by plugin 'beta' of beta 1.0 too" in plugins["alpha"].reason
    assert "'somenet' is claimed by plugin 'alpha' of alpha 1.0 too" in plugins["beta"].reason


def test_a_name_that_two_plugins_claim_works_when_one_of_them_is_disabled(
    plugin_packages: PluginPackages, host: Host
) -> None:
    found = [install_model(plugin_packages, "alpha", "SomeNet"), install_model(plugin_packages, "beta", "SomeNet")]
    alpha, beta = load_plugins(found, {"beta"}, host)
    assert (alpha.state, beta.state) == (State.LOADED, State.DISABLED)


def test_a_name_in_two_kinds_is_no_conflict() -> None:
    plugins = [
        Plugin(kind.value, kind.value, "1", registrations=[Registration(kind, "thing", type("Thing", (), {}))])
        for kind in (Kind.MODEL, Kind.GENERATOR)
    ]
    settle_claims(plugins)
    assert {plugin.state for plugin in plugins} == {State.LOADED}


@pytest.mark.parametrize("own_first", [True, False])
def test_a_built_in_plugin_keeps_its_name(own_first: bool) -> None:
    own, other = (
        Plugin(name, distribution, "1", registrations=[Registration(Kind.MODEL, "thing", type("Thing", (), {}))])
        for name, distribution in (("thing", "anomalib_defect_plugins"), ("copy", "copycat"))
    )
    settle_claims([own, other] if own_first else [other, own])
    assert own.state is State.LOADED
    assert other.reason == "the model name 'thing' is taken by plugin 'thing' of anomalib_defect_plugins 1"


@pytest.mark.parametrize("disabled", ["faulty", "all"])
def test_a_disabled_plugin_is_not_imported(plugin_packages: PluginPackages, host: Host, disabled: str) -> None:
    (plugin,) = load_plugins([plugin_packages.install("Faulty", "import sys; sys.exit()")], {disabled}, host)
    assert (plugin.state, plugin.reason) == (State.DISABLED, "")
    assert "Faulty" not in sys.modules
