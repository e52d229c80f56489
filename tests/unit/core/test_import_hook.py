"""Callbacks that run once a module is imported, whatever state its import is in."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anomalib_defect_plugins import autoload
from anomalib_defect_plugins.core import import_hook
from anomalib_defect_plugins.core.import_hook import after_attempt, after_import

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """A function that writes a module, which can be imported during the test only."""
    monkeypatch.syspath_prepend(tmp_path)
    finders, modules = list(sys.meta_path), set(sys.modules)

    def write(name: str, source: str) -> None:
        path = tmp_path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        importlib.invalidate_caches()

    yield write
    sys.meta_path[:] = finders
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that modules in a test append to, as ``sys.calls``."""
    calls: list[str] = []
    monkeypatch.setattr(sys, "calls", calls, raising=False)
    return calls


def test_the_callback_runs_after_a_later_import_is_complete(write: Write, calls: list[str]) -> None:
    write("target", "first = 1\nlast = 2\n")
    after_import("target", lambda: calls.append(sys.modules["target"].last))
    assert calls == []
    importlib.import_module("target")
    assert calls == [2]


def test_the_callback_runs_after_an_import_in_progress_is_complete(write: Write, calls: list[str]) -> None:
    write(
        "target",
        "import sys\n"
        "from anomalib_defect_plugins.core.import_hook import after_import\n"
        "after_import('target', lambda: sys.calls.append(sys.modules['target'].last))\n"
        "assert sys.calls == []\n"
        "last = 2\n",
    )
    importlib.import_module("target")
    assert calls == [2]


def test_the_callback_runs_at_once_for_an_imported_module(calls: list[str]) -> None:
    after_import("sys", lambda: calls.append("now"))
    assert calls == ["now"]


def test_the_callback_runs_once_and_leaves_no_finder(write: Write, calls: list[str]) -> None:
    write("target", "")
    before = list(sys.meta_path)
    after_import("target", lambda: calls.append("once"))
    importlib.import_module("target")
    importlib.reload(sys.modules["target"])
    assert calls == ["once"]
    assert sys.meta_path == before


def test_every_callback_for_one_module_runs(write: Write, calls: list[str]) -> None:
    write("target", "")
    after_import("target", lambda: calls.append("a"))
    after_import("target", lambda: calls.append("b"))
    importlib.import_module("target")
    assert sorted(calls) == ["a", "b"]


def test_finding_a_spec_does_not_run_the_callback(write: Write, calls: list[str]) -> None:
    write("target", "")
    after_import("target", lambda: calls.append("imported"))
    assert importlib.util.find_spec("target") is not None
    assert calls == []
    importlib.import_module("target")
    assert calls == ["imported"]


@pytest.mark.parametrize("in_progress", [False, True])
def test_the_callback_keeps_waiting_after_a_failed_import(write: Write, calls: list[str], in_progress: bool) -> None:
    def watch() -> None:
        after_import("target", lambda: calls.append("imported"))

    sys.watch = watch
    if not in_progress:
        watch()
    write("target", "import sys\n" + ("sys.watch()\n" if in_progress else "") + "raise ImportError\n")
    with pytest.raises(ImportError):
        importlib.import_module("target")
    assert calls == []
    write("target", "# valid now, and of another size, so that no cached byte code is used\n")
    importlib.import_module("target")
    assert calls == ["imported"]


def test_after_attempt_runs_the_callback_after_a_failure(write: Write, calls: list[str]) -> None:
    write(
        "target",
        "import sys\n"
        "from anomalib_defect_plugins.core.import_hook import after_attempt\n"
        "after_attempt('target', lambda: sys.calls.append('ended'))\n"
        "raise ImportError\n",
    )
    with pytest.raises(ImportError):
        importlib.import_module("target")
    assert calls == ["ended"]
    assert after_attempt is import_hook.after_attempt


def test_a_callback_finds_the_module_in_its_package(write: Write, calls: list[str]) -> None:
    write("package.__init__", "")
    write("package.inner", "value = 3\n")
    package = importlib.import_module("package")
    after_import("package.inner", lambda: calls.append(package.inner.value))
    importlib.import_module("package.inner")
    assert calls == [3]


def test_a_watched_module_keeps_an_ordinary_spec(write: Write, calls: list[str]) -> None:
    write("target", "")
    after_import("target", lambda: None)
    module = importlib.import_module("target")
    assert type(module.__spec__) is importlib.machinery.ModuleSpec
    assert not import_hook.is_importing(module)


def test_autoload_raises_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(autoload, "after_import", fail)
    autoload.autoload()


def test_autoload_does_nothing_when_the_package_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[str] = []
    monkeypatch.setattr(autoload, "after_import", lambda name, _: waiting.append(name))
    monkeypatch.setenv("ANOMALIB_DEFECT_PLUGINS_DISABLE", "some, All")
    autoload.autoload()
    assert waiting == []
    monkeypatch.setenv("ANOMALIB_DEFECT_PLUGINS_DISABLE", "some")
    autoload.autoload()
    assert waiting == ["anomalib.models", "anomalib.data"]
