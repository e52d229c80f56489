"""``seed_everything`` of ``anomalib train`` reaches the weights."""

from pathlib import Path

import pytest
import torch
import yaml
from anomalib.cli.cli import AnomalibCLI

from anomalib_defect_plugins.testing import write_folder_data
from anomalib_defect_plugins.testing.runs import differences

SIDN = [
    "--model",
    "sidn",
    "--model.image_size",
    "[32,32]",
    "--model.backbone",
    "null",
    "--model.channels",
    "2",
    "--model.clusters",
    "2",
]

PADIM = ["--model", "Padim", "--model.pre_trained", "false", "--model.n_features", "2", "--model.layers", "[layer1]"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the environment variables that Lightning sets."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_folder_data(folder, image_size=(32, 32), normal=4, normal_test=2, defective=2)
    return folder


def command(root: Path, folder: Path, *words: str) -> list[str]:
    folders = {"root": root, "normal_dir": "normal", "abnormal_dir": "defective", "mask_dir": "masks"}
    data = [word for name, value in folders.items() for word in (f"--data.{name}", str(value))]
    quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    return [*words, "--data", "Folder", "--data.name", "x", *data, *quiet, "--default_root_dir", str(folder)]


@pytest.mark.slow
def test_two_runs_of_a_seed_have_equal_weights_also_with_loader_workers(root, tmp_path):
    ends = []
    for number, seed in enumerate(("5", "5", "6")):
        (tmp_path / "seed.yaml").write_text(f"seed_everything: {seed}\n")
        words = ["fit", "--config", str(tmp_path / "seed.yaml"), *SIDN, "--model.iterations", "3"]
        words += ["--data.num_workers", "1", "--data.train_batch_size", "2"]
        cli = AnomalibCLI(command(root, tmp_path / str(number), *words))
        (saved,) = (tmp_path / str(number)).rglob("config.yaml")
        assert yaml.safe_load(saved.read_text())["seed_everything"] == int(seed)
        ends.append(cli.model.state_dict())
    assert not differences(ends[0], ends[1])
    assert len(differences(ends[0], ends[2])) > 10


@pytest.mark.slow
@pytest.mark.parametrize(("model", "equal"), [(SIDN, True), (PADIM, False)], ids=["plugin", "stock"])
@pytest.mark.parametrize("subcommand", ["train", "test"])
def test_a_model_of_a_plugin_is_created_with_the_seed_and_a_stock_model_is_not(
    root, tmp_path, subcommand, model, equal
):
    words = command(root, tmp_path, subcommand, *model, "--seed_everything", "7")
    first, second = (next(AnomalibCLI(words, run=False).model.parameters()) for _ in range(2))
    assert torch.equal(first, second) is equal
