"""The package that ``anomalib-defects new`` writes passes its tests, and all commands find it once it is installed."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from plugin_packages import PluginPackages

from anomalib_defect_plugins.cli import main
from anomalib_defect_plugins.testing import write_folder_data

pytestmark = pytest.mark.slow

DATA = {
    "class_path": "Folder",
    "init_args": {
        "name": "generated",
        "root": "data",
        "normal_dir": "normal",
        "normal_test_dir": "normal_test",
        "abnormal_dir": "defective",
        "mask_dir": "masks",
        "train_batch_size": 4,
        "num_workers": 0,
        "val_split_mode": "same_as_test",
        "seed": 0,
    },
}
LIST_AND_BENCHMARK = """
    from anomalib_defect_plugins.cli import main

    raise SystemExit(main(["list", "--json"]) or main(["benchmark", "--config", "benchmark.yaml"]))
"""
SMALL = {"image_size": [64, 64], "channels": 4, "iterations": 4}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The written package."""
    folder = tmp_path_factory.mktemp("package") / "my-method"
    assert main(["new", "my-method", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> PluginPackages:
    """The package, built and installed into a separate folder, with training data in the working folder."""
    folder = tmp_path_factory.mktemp("installed")
    _python("build", "--wheel", "--no-isolation", "--outdir", str(folder), str(package))
    (wheel,) = folder.glob("my_method-0.1.0-*.whl")
    site = folder / "site"
    _python("pip", "install", "--no-index", "--no-deps", "--target", str(site), str(wheel))
    write_folder_data(folder / "work" / "data")
    return PluginPackages(site)


def _python(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True, capture_output=True, text=True)


@pytest.mark.long
def test_it_passes_its_own_tests(package: Path, installed: PluginPackages) -> None:
    # The graph for images of any size is tested, those that the contract derives from it are not.
    chosen = "not quantised and not inferencer and not fixed_size"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, str(package)]
    result = installed.run(words)
    assert result.returncode == 0, result.stdout[-3000:]
    assert "passed" in result.stdout


def test_anomalib_trains_it_by_name(installed: PluginPackages) -> None:
    (installed.work / "data.yaml").write_text(yaml.safe_dump({"data": DATA}))
    small = [f"--model.{key}={value}" for key, value in SMALL.items()]
    result = installed.command("anomalib", "train", "--model", "my_method", *small, "--config", "data.yaml")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "image_AUROC" in result.stdout
    assert list(installed.work.glob("results/MyMethod/generated/v0/**/model.ckpt"))


def test_it_is_listed_and_a_benchmark_runs_it_by_name(installed: PluginPackages) -> None:
    content = {
        "name": "mine",
        "seeds": [0],
        "trainer": {"accelerator": "cpu"},
        "models": [{"class_path": "my_method", "init_args": SMALL}],
        "data": [DATA],
        "measure": {"latency": False},
    }
    (installed.work / "benchmark.yaml").write_text(yaml.safe_dump(content))
    result = installed.python(LIST_AND_BENCHMARK)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = json.loads(result.stdout[: result.stdout.index("\n]") + 2])
    (row,) = [row for row in rows if row["name"] == "my_method"]
    assert (row["state"], row["supervision"], row["distribution"]) == ("loaded", "normal", "my-method")
    (row,) = csv.DictReader((installed.work / "results" / "mine" / "results.csv").open())
    assert row["status"] == "done"
