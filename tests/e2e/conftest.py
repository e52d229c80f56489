"""Fixtures of the browser tests: one demo for the session, because it starts slowly."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from demo_results import MADE, write_demo
from demo_server import launch_browser, serve_demo
from PIL import Image, PngImagePlugin


@dataclass(frozen=True)
class Demo:
    """A running demo.

    Args:
        url: URL of the demo.
        folder: Folder with images to upload, secret files, and the results.
    """

    url: str
    folder: Path

    secret = "what-nobody-may-read"
    """Text of the secret files."""

    colour = (17, 201, 93)
    """Colour of the secret image."""

    @property
    def results(self) -> Path:
        """Results folder: ``made`` has 50 runs; ``models`` has a run with a model and one with a broken model."""
        return self.folder / "results"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo with results and without network access."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, MADE)
    _write_secrets(folder)
    with serve_demo(folder / "results") as url:
        yield Demo(url, folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser; module-scoped, since asyncio cannot be used while playwright runs."""
    with launch_browser() as browser:
        yield browser


def _write_secrets(folder: Path) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", Demo.secret)
    Image.new("RGB", (64, 64), Demo.colour).save(folder / "secret.png", pnginfo=notes)
    (folder / "secret.txt").write_text(Demo.secret)
