"""The built wheel, installed into a separate environment outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
START_ANOMALIB = "import sys; sys.argv[0] = 'anomalib'; from anomalib.cli.cli import main; main()"
CONFIGURE_PADIM = """
import anomalib.models, anomalib.data
assert not hasattr(anomalib.models, 'HtpGan')
from anomalib.cli.cli import AnomalibCLI
AnomalibCLI(["train", "--model", "Padim", "--print_config"])
"""
SMALL = {"image_size": [64, 64], "num_scales": 2, "min_size": 32, "width": 2, "iterations_per_scale": 1}
BENCHMARK = {
    "accelerator": "cpu",
    "benchmark": {
        "seed": 0,
        "model": {"class_path": {"grid": ["HtpGan"]}, "init_args": {**SMALL, "visualizer": False}},
        "data": {"class_path": "TextureDefects", "init_args": {"category": "gravel", "image_size": 64}},
    },
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (path,) = folder.glob("*.whl")
    return path


class Environment:
    """A virtual environment with all packages of the current one except this project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        self.python = folder / "venv" / "bin" / "python"
        (self.site,) = (folder / "venv").glob("lib/*/site-packages")
        for item in Path(sysconfig.get_path("purelib")).iterdir():
            if "anomalib_defect_plugins" not in item.name:
                (self.site / item.name).symlink_to(item)

    def pip(self, *arguments: str) -> None:
        """Run pip of the current environment on the virtual environment."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--no-input", "--disable-pip-version-check"]
        subprocess.run([*pip, *arguments], check=True, capture_output=True)

    def run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run Python in a folder outside the checkout."""
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ANOMALIB_", "PYTHON"))}
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        command = [str(self.python), "-W", "ignore", *arguments]
        return subprocess.run(command, cwd=work, env=inherited | cache, capture_output=True, text=True, check=False)

    def anomalib(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command ``anomalib``."""
        return self.run(["-c", START_ANOMALIB, *arguments])


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """An environment with the wheel installed; the last test uninstalls it."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    environment.pip("install", "--no-index", "--no-deps", str(wheel))
    return environment


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.partition("/")[0] for name in names}
    (info,) = roots - {"anomalib_defect_plugins"}
    assert info.endswith(".dist-info")
    assert f"{info}/licenses/LICENSE" in names
    templates = "anomalib_defect_plugins/report/templates"
    assert {f"{templates}/page.html", f"{templates}/style.css"} <= set(names)
    assert "anomalib_defect_plugins/py.typed" in names
    assert "anomalib_defect_plugins/scaffold/templates/pyproject.toml.jinja" in names
    assert not [name for name in names if "__pycache__" in name or "test_" in name]
    # including templates, styles, scripts and configurations
    files = {path for path in (CHECKOUT / "anomalib_defect_plugins").rglob("*.*") if path.suffix != ".pyc"}
    assert {path.relative_to(CHECKOUT).as_posix() for path in files} <= set(names)


def test_the_train_command_trains_tests_and_writes_images(environment: Environment) -> None:
    small = [f"--model.{key}={value}" for key, value in SMALL.items()]
    result = environment.anomalib(
        "train", "--model", "htpgan", "--data", "TextureDefects", "--data.image_size", "64", *small
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "image_AUROC" in result.stdout
    (run,) = environment.folder.glob("work/results/HtpGan/TextureDefects/brick/v*")
    assert list(run.glob("weights/lightning/*.ckpt"))
    assert list(run.glob("images/**/*.png"))


def test_the_benchmark_of_anomalib_runs_a_model_and_data_of_this_package(environment: Environment) -> None:
    configuration = environment.folder / "benchmark.json"
    configuration.write_text(json.dumps(BENCHMARK))
    result = environment.anomalib("benchmark", "--config", str(configuration))
    assert result.returncode == 0, result.stderr[-3000:]
    (table,) = environment.folder.glob("work/**/results.csv")
    header, row = table.read_text().splitlines()
    assert "image_AUROC" in header
    assert "HtpGan" in row
    assert "TextureDefects" in row


def test_nothing_remains_after_uninstalling(environment: Environment) -> None:
    assert list(environment.site.glob("anomalib_defect_plugins/py.typed"))
    assert list((environment.folder / "venv" / "bin").glob("*defect*"))
    environment.pip("uninstall", "--yes", "anomalib-defect-plugins")
    assert not list(environment.site.glob("*defect*"))
    assert not list((environment.folder / "venv" / "bin").glob("*defect*"))
    result = environment.run(["-c", CONFIGURE_PADIM])
    assert (result.returncode, result.stderr) == (0, "")
    assert "class_path: anomalib.models.Padim" in result.stdout
    shutil.rmtree(environment.folder)
