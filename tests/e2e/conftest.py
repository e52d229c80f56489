"""One demo for all tests of its tabs: it takes a while to start."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from demo_results import MADE, write_demo
from demo_server import browsing, serving
from PIL import Image, PngImagePlugin


@dataclass(frozen=True)
class Demo:
    """A demo that runs.

    Args:
        url: Its address.
        folder: A folder with images to hand in, files that nobody may read, and the results.
    """

    url: str
    folder: Path

    secret = "what-nobody-may-read"
    """What files outside the results hold."""

    colour = (17, 201, 93)
    """Colour of the picture outside the results."""

    @property
    def results(self) -> Path:
        """What it shows: ``made``, of 50 runs, and ``models``, of one with a model and one with a broken one."""
        return self.folder / "results"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo with results, without a network."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, MADE)
    _write_secrets(folder)
    with serving(folder / "results") as url:
        yield Demo(url, folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser; for a module only, since asyncio cannot be used beside it."""
    with browsing() as it:
        yield it


def _write_secrets(folder: Path) -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", Demo.secret)
    Image.new("RGB", (64, 64), Demo.colour).save(folder / "secret.png", pnginfo=notes)
    (folder / "secret.txt").write_text(Demo.secret)
