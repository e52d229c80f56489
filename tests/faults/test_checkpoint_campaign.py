"""Any checkpoint is loaded or refused in one line, executes no code and is not changed; see ``bad_input``."""

import copy
import io
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input import CASES, cases, count_cases, one_line  # noqa: F401 - a fixture
from hypothesis import given
from hypothesis import strategies as st
from small_models import MODELS, make_model
from strategies import (
    DAMAGES,
    Damage,
    Payload,
    changed,
)

from anomalib_defect_plugins.core.errors import UserError
from anomalib_defect_plugins.data import WithDefects
from anomalib_defect_plugins.models.components.checkpoint_io import AtomicCheckpointIO
from anomalib_defect_plugins.testing import folder_datamodule, write_folder_data
from anomalib_defect_plugins.testing.runs import fit, seed_all

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("campaign")


@pytest.fixture(scope="module")
def surfaces(folder: Path) -> Path:
    """A few small training images."""
    write_folder_data(folder / "data", image_size=(40, 40), normal=4, normal_test=2, defective=2)
    return folder / "data"


@pytest.fixture(scope="module")
def checkpoints(surfaces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A valid ``last.ckpt`` of two models."""
    paths = {}
    for name in ("sidn", "defectgan"):
        folder = tmp_path_factory.mktemp(name)
        train(name, surfaces, folder)
        (paths[name],) = folder.rglob("last.ckpt")
    return paths


def train(name: str, data: Path, folder: Path, ckpt_path: Path | None = None) -> None:
    seed_all(0)
    datamodule = folder_datamodule(data)
    datamodule = WithDefects(datamodule, real=1, masks=False) if name == "defectgan" else datamodule
    fit(make_model(name, iterations=2), datamodule, folder, {"limit_val_batches": 1}, ckpt_path=ckpt_path)


def load(name: str, path: Path) -> None:
    """Load a checkpoint as a model and as a trainer do."""
    kind = MODELS[name][0]
    with one_line("checkpoints, loaded"):
        kind.load_from_checkpoint(path, map_location="cpu")
    with one_line("checkpoints, read by a trainer", str(path)):
        AtomicCheckpointIO().load_checkpoint(path)


@cases(40)
@given(damage=DAMAGES, name=st.sampled_from(["sidn", "defectgan"]))
def test_damaged_bytes_are_found_and_the_file_is_unchanged(damage: Damage, name, checkpoints, folder):
    content = damage(checkpoints[name].read_bytes())
    path = folder / "damaged.ckpt"
    path.write_bytes(content)
    load(name, path)
    with suppress(UserError):  # bytes without meaning, such as timestamps in the archive, may change
        loaded = AtomicCheckpointIO().load_checkpoint(path)
        assert is_same(loaded, torch.load(checkpoints[name], weights_only=True))
    assert path.read_bytes() == content


def is_same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    return repr(one) == repr(other)


@cases(40)
@given(data=st.data(), name=st.sampled_from(["sidn", "defectgan"]))
def test_changed_content_is_accepted_or_refused_in_one_line(data, name, checkpoints, folder):
    content = torch.load(checkpoints[name], weights_only=True)
    path = folder / "changed.ckpt"
    torch.save(data.draw(changed(content)), path)
    load(name, path)


@cases(20)
@given(data=st.data())
def test_training_resumes_from_changed_content_or_fails_in_one_line(data, checkpoints, surfaces, folder):
    content = torch.load(checkpoints["sidn"], weights_only=True)
    key = data.draw(
        st.sampled_from(["optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step"])
    )
    path = folder / "resumed.ckpt"
    torch.save({**content, key: data.draw(changed(content[key]))}, path)
    before = path.read_bytes()
    with one_line("checkpoints, resumed"):
        train("sidn", surfaces, folder / "resumed", path)
    shutil.rmtree(folder / "resumed", ignore_errors=True)
    assert path.read_bytes() == before


def test_the_checkpoint_of_another_model_is_refused_in_one_line(checkpoints):
    for name, other in (("sidn", "defectgan"), ("defectgan", "sidn")):
        with one_line("checkpoints, of another model"):
            MODELS[name][0].load_from_checkpoint(checkpoints[other])
            pytest.fail("it was loaded")


@pytest.mark.parametrize("version", [None, "0.9.0", "1.5.10", "2.1.4", "later", 3])
def test_the_checkpoint_of_another_lightning_is_refused_in_one_line(checkpoints, tmp_path, version):
    content = torch.load(checkpoints["sidn"], weights_only=True)
    torch.save({**content, "pytorch-lightning_version": version}, tmp_path / "other.ckpt")
    CASES["checkpoints, of another version"] += 1
    with pytest.raises(UserError, match="it was written by Lightning"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "other.ckpt")


def payloads(content: dict[str, Any], target: Path) -> dict[str, bytes]:
    """Return files that create ``target`` if their content is executed."""
    payload = Payload(target)

    def saved(value: object, zipped: bool = True) -> bytes:
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()

    inside = copy.copy(content)
    inside["hyper_parameters"] = {**content["hyper_parameters"], "channels": payload}
    weights = {**content, "state_dict": {**content["state_dict"], "payload": payload}}
    return {
        "pickle": pickle.dumps(payload),
        "alone": saved(payload),
        "as a hyper-parameter": saved(inside),
        "among the weights": saved(weights),
        "beside the rest": saved({**content, "payload": payload}),
        "in the old format": saved(weights, zipped=False),
    }


@pytest.mark.parametrize("name", ["sidn", "defectgan"])
def test_code_in_a_checkpoint_is_not_executed(name, checkpoints, tmp_path):
    target = tmp_path / "executed"
    for where, content in payloads(torch.load(checkpoints[name], weights_only=True), target).items():
        path = tmp_path / "bad.ckpt"
        path.write_bytes(content)
        for load_checkpoint in (MODELS[name][0].load_from_checkpoint, AtomicCheckpointIO().load_checkpoint):
            CASES["checkpoints, with a payload"] += 1
            with pytest.raises(UserError):
                load_checkpoint(path)
            assert not target.exists(), where
    pickle.loads(payloads({"hyper_parameters": {}, "state_dict": {}}, target)["pickle"])
    assert target.exists(), "the payload does not work"
