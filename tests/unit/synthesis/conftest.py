"""A request for synthetic defects, made by a stand-in that paints squares."""

from pathlib import Path

import pytest
from layouts import write_defect_folder
from stand_ins import SquareGan

from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.synthesis import synthesizer as module
from anomalib_defect_plugins.synthesis.synthesizer import Request, synthesize


@pytest.fixture
def gan(monkeypatch: pytest.MonkeyPatch) -> SquareGan:
    gan = SquareGan(image_size=(32, 48))
    monkeypatch.setattr(module, "load", lambda *_: gan)
    return gan


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def data(tmp_path: Path) -> DefectFolder:
    write_defect_folder(tmp_path / "real")
    data = DefectFolder(tmp_path / "real", num_workers=0)
    data.setup()
    return data


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def make(gan: SquareGan, checkpoint: Path, data: DefectFolder, out: Path):
    def make(where: Path = out, **request: object) -> list[dict[str, object]]:
        return synthesize(checkpoint, data, where, Request(**{"num": 4, **request}))

    return make
