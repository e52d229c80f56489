"""Waiting for a module, whatever state its import is in."""

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
    """Write a module that can be imported in this test only."""
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
    """A list that the modules under test can append to, as ``sys.calls``."""
    found: list[str] = []
    monkeypatch.setattr(sys, "calls", found, raising=False)
    return found


def test_an_import_still_to_come_is_complete_when_the_callback_runs(write: Write, calls: list[str]) -> None:
    write("wanted", "first = 1\nlast = 2\n")
    after_import("wanted", lambda: calls.append(sys.modules["wanted"].last))
    assert calls == []
    importlib.import_module("wanted")
    assert calls == [2]


def test_an_import_under_way_is_complete_when_the_callback_runs(write: Write, calls: list[str]) -> None:
    write(
        "wanted",
        "import sys\n"
        "from anomalib_defect_plugins.core.import_hook import after_import\n"
        "after_import('wanted', lambda: sys.calls.append(sys.modules['wanted'].last))\n"
        "assert sys.calls == []\n"
        "last = 2\n",
    )
    importlib.import_module("wanted")
    assert calls == [2]


def test_a_module_that_is_there_is_not_waited_for(calls: list[str]) -> None:
    after_import("sys", lambda: calls.append("now"))
    assert calls == ["now"]


def test_the_callback_runs_once_and_leaves_no_finder(write: Write, calls: list[str]) -> None:
    write("wanted", "")
    before = list(sys.meta_path)
    after_import("wanted", lambda: calls.append("once"))
    importlib.import_module("wanted")
    importlib.reload(sys.modules["wanted"])
    assert calls == ["once"]
    assert sys.meta_path == before


def test_every_callback_for_one_module_runs(write: Write, calls: list[str]) -> None:
    write("wanted", "")
    after_import("wanted", lambda: calls.append("a"))
    after_import("wanted", lambda: calls.append("b"))
    importlib.import_module("wanted")
    assert sorted(calls) == ["a", "b"]


def test_looking_for_a_module_is_not_importing_it(write: Write, calls: list[str]) -> None:
    write("wanted", "")
    after_import("wanted", lambda: calls.append("imported"))
    assert importlib.util.find_spec("wanted") is not None
    assert calls == []
    importlib.import_module("wanted")
    assert calls == ["imported"]


@pytest.mark.parametrize("under_way", [False, True])
def test_an_import_that_fails_is_waited_for_again(write: Write, calls: list[str], under_way: bool) -> None:
    def watch() -> None:
        after_import("wanted", lambda: calls.append("imported"))

    sys.watch = watch
    if not under_way:
        watch()
    write("wanted", "import sys\n" + ("sys.watch()\n" if under_way else "") + "raise ImportError\n")
    with pytest.raises(ImportError):
        importlib.import_module("wanted")
    assert calls == []
    write("wanted", "# It works now, and its size is another, so no cached byte code is taken for it.\n")
    importlib.import_module("wanted")
    assert calls == ["imported"]


def test_after_attempt_does_not_mind_a_failure(write: Write, calls: list[str]) -> None:
    write(
        "wanted",
        "import sys\n"
        "from anomalib_defect_plugins.core.import_hook import after_attempt\n"
        "after_attempt('wanted', lambda: sys.calls.append('ended'))\n"
        "raise ImportError\n",
    )
    with pytest.raises(ImportError):
        importlib.import_module("wanted")
    assert calls == ["ended"]
    assert after_attempt is import_hook.after_attempt


def test_a_callback_finds_the_module_in_its_package(write: Write, calls: list[str]) -> None:
    write("box.__init__", "")
    write("box.inner", "value = 3\n")
    box = importlib.import_module("box")
    after_import("box.inner", lambda: calls.append(box.inner.value))
    importlib.import_module("box.inner")
    assert calls == [3]


def test_a_watched_module_keeps_an_ordinary_spec(write: Write, calls: list[str]) -> None:
    write("wanted", "")
    after_import("wanted", lambda: None)
    module = importlib.import_module("wanted")
    assert type(module.__spec__) is importlib.machinery.ModuleSpec
    assert not import_hook.is_importing(module)


def test_autoload_survives_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(autoload, "after_import", fail)
    autoload.autoload()


def test_autoload_does_nothing_when_everything_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[str] = []
    monkeypatch.setattr(autoload, "after_import", lambda name, _: waiting.append(name))
    monkeypatch.setenv("ANOMALIB_DEFECT_PLUGINS_DISABLE", "some, All")
    autoload.autoload()
    assert waiting == []
    monkeypatch.setenv("ANOMALIB_DEFECT_PLUGINS_DISABLE", "some")
    autoload.autoload()
    assert waiting == ["anomalib.models", "anomalib.data"]
