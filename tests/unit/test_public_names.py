"""Public names of the package, and imports that stay light."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import anomalib_defect_plugins
from anomalib_defect_plugins import plugins


@pytest.mark.parametrize("name", anomalib_defect_plugins.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(anomalib_defect_plugins, name) is not None
    assert name in dir(anomalib_defect_plugins)


@pytest.mark.parametrize("name", plugins.__all__)
def test_every_name_for_plugins_exists(name: str) -> None:
    assert getattr(plugins, name) is not None


@pytest.mark.parametrize("module", [anomalib_defect_plugins, plugins])
def test_an_unknown_name_is_an_attribute_error(module: object) -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_the_version_is_that_of_the_distribution() -> None:
    assert anomalib_defect_plugins.__version__ == version("anomalib-defect-plugins")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import anomalib_defect_plugins", ["torch", "pluggy", "importlib.metadata"]),
        ("from anomalib_defect_plugins import Supervision, hookimpl", ["torch", "anomalib"]),
        ("import anomalib_defect_plugins.cli.command", ["torch", "anomalib", "rich"]),
    ],
)
def test_importing_the_package_imports_no_heavy_module(code: str, absent: list[str]) -> None:
    check = f"{code}\nimport sys\nloaded = set({absent}) & set(sys.modules)\nassert not loaded, loaded"
    subprocess.run([sys.executable, "-c", check], check=True)
