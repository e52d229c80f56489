"""Synthesis of small data sets by a fake model that paints squares."""

from pathlib import Path
from typing import Any

import pytest
from dataset_layouts import write_defect_folder
from fake_synthesizer import FakeSynthesizer, MakeImages

from anomalib_defect_plugins.data import DefectFolder
from anomalib_defect_plugins.synthesis import synthesizer as module
from anomalib_defect_plugins.synthesis.folder import SyntheticRow
from anomalib_defect_plugins.synthesis.synthesizer import SynthesisRequest, synthesize


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSynthesizer:
    fake = FakeSynthesizer(image_size=(32, 48))
    monkeypatch.setattr(module, "load_synthesizer", lambda *_: fake)
    return fake


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
def make(fake: FakeSynthesizer, checkpoint: Path, data: DefectFolder, out: Path) -> MakeImages:
    del fake

    def make(folder: Path = out, **request: Any) -> list[SyntheticRow]:
        return synthesize(checkpoint, data, folder, SynthesisRequest(**{"num": 4, **request}))

    return make
