"""``anomalib-defects demo``: errors in one line."""

import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomalib_defect_plugins.cli import main


@pytest.fixture(autouse=True)
def _restore_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Restore the environment variables and the signal handler that the command sets."""
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_without_gradio_the_message_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "anomalib_defect_plugins.demo.app", raising=False)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "error: the demo needs Gradio; pip install 'anomalib-defect-plugins[demo]'\n"


def test_results_must_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    path = tmp_path / "results.csv"
    path.touch()
    assert main(["demo", "--results", str(path)]) == 1
    assert f"--results {path} is not a folder; pass one that" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["taken", "70000"])
def test_a_port_that_is_taken_or_invalid_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], port: str
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1]) if port == "taken" else port
        assert main(["demo", "--results", str(tmp_path), "--port", port]) == 1
    assert f"cannot listen on 127.0.0.1, port {port}; choose others (--host, --port)" in capsys.readouterr().err
