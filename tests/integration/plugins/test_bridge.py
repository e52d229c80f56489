"""Plugins in anomalib: its functions, its command line, and any order of imports."""

import json
import sys

import pytest
from plugin_packages import GOOD, PluginPackages

pytestmark = pytest.mark.slow

FIND_BY_EVERY_NAME = """
    import contextlib
    import io
    import json

    from anomalib.cli.cli import AnomalibCLI
    from anomalib.data import get_datamodule
    from anomalib.models import get_model, list_models


    def configuration(*arguments):
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            AnomalibCLI(["train", *arguments, "--print_config"])
        return [line.strip() for line in printed.getvalue().splitlines()]


    print(json.dumps({
        "by name": get_model("goodnet", width=3).width,
        "by class path": get_model({"class_path": "GoodNet", "init_args": {"width": 4}}).width,
        "by registered name": type(get_model({"class_path": "goodnet"})).__name__,
        "by dumped path": get_model({"class_path": "anomalib.models.goodnet"}).name,
        "listed": sorted(name for name in list_models() if "good" in name),
        "data": get_datamodule({"class_path": "GoodData"}).name,
        "goodnet": configuration("--model", "goodnet", "--model.width", "4", "--data", "GoodData"),
        "GoodNet": configuration("--model", "GoodNet", "--model.width", "5"),
        "full path": configuration("--model", "good.GoodNet", "--model.width", "6"),
    }))
"""


def test_every_way_to_name_a_class_finds_it(plugin_packages: PluginPackages) -> None:
    plugin_packages.install("good", GOOD)
    result = plugin_packages.python(FIND_BY_EVERY_NAME)
    assert result.returncode == 0, result.stderr
    assert "skipped" not in result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["by name"] == 3
    assert found["by class path"] == 4
    assert found["by registered name"] == "GoodNet"
    assert found["by dumped path"] == "GoodNet"
    assert found["listed"] == ["good_net"]
    assert found["data"] == "good"
    assert {"class_path: anomalib.models.goodnet", "width: 4", "class_path: good.GoodData"} <= set(found["goodnet"])
    assert {"class_path: good.GoodNet", "width: 5"} <= set(found["GoodNet"])
    assert {"class_path: good.GoodNet", "width: 6"} <= set(found["full path"])


def test_a_dumped_configuration_can_be_read_again(plugin_packages: PluginPackages) -> None:
    plugin_packages.install("good", GOOD)
    again = """
        import contextlib, io, pathlib
        from anomalib.cli.cli import AnomalibCLI
        for _ in range(2):
            with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
                AnomalibCLI(["train", *arguments, "--print_config"])
            pathlib.Path("dumped.yaml").write_text(printed.getvalue())
            arguments = ["--config", "dumped.yaml"]
        cli = AnomalibCLI(["train", "--config", "dumped.yaml"], run=False)
        print(type(cli.model).__name__, cli.model.name, cli.model.width, cli.datamodule.name)
    """
    arguments = ["--model", "goodnet", "--model.width", "4", "--data", "GoodData"]
    result = plugin_packages.python(
        again.replace("import contextlib", f"arguments = {arguments}\n        import contextlib")
    )
    assert result.stdout.splitlines()[-1:] == ["GoodNet GoodNet 4 good"], result.stderr


ORDERS = {
    "the data first": "import sys, anomalib.data\nassert 'anomalib.models' not in sys.modules\nimport anomalib.models",
    "data alone": "from anomalib.data import GoodData, get_datamodule\nget_datamodule({'class_path': 'GoodData'})",
    "this package first": "import anomalib_defect_plugins.plugins.bridge\nimport anomalib.models.components",
    "after a failure": "import contextlib\nwith contextlib.suppress(ZeroDivisionError):\n    import fails",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_names_are_available_whatever_is_imported_first(plugin_packages: PluginPackages, order: str) -> None:
    plugin_packages.install("good", GOOD)
    (plugin_packages.site / "fails.py").write_text("import anomalib.models\n1 / 0\n")
    check = "import anomalib.models, anomalib.data\nassert anomalib.models.GoodNet and anomalib.data.GoodData\n"
    result = plugin_packages.python(f"{order}\n{check}assert anomalib.models.get_model('goodnet')")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_an_unknown_name_is_an_ordinary_attribute_error(plugin_packages: PluginPackages) -> None:
    code = """
        import anomalib.data
        try:
            anomalib.data.Nothing
        except AttributeError as error:
            print(error)
        from anomalib.data import transforms
        print(hasattr(anomalib.data, "Nothing"), transforms.__name__)
    """
    result = plugin_packages.python(code)
    assert result.stdout.splitlines() == [
        "module 'anomalib.data' has no attribute 'Nothing'",
        "False anomalib.data.transforms",
    ], result.stderr


def test_full_class_paths_work_without_autoloading(plugin_packages: PluginPackages) -> None:
    plugin_packages.install("good", GOOD)
    result = plugin_packages.command(
        "anomalib",
        "train",
        "--model=anomalib_defect_plugins.HtpGan",
        "--data=good.GoodData",
        "--print_config",
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    assert result.returncode == 0, result.stderr
    assert "class_path: anomalib_defect_plugins.HtpGan" in result.stdout
    assert "class_path: good.GoodData" in result.stdout


def test_a_model_of_anomalib_is_configured_as_without_this_package(plugin_packages: PluginPackages) -> None:
    plugin_packages.install("good", GOOD)
    arguments = ["train", "--model", "Padim", "--data", "MVTecAD", "--print_config"]
    with_plugins = plugin_packages.command("anomalib", *arguments)
    without_plugins = plugin_packages.command("anomalib", *arguments, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert "class_path: anomalib.models.Padim" in with_plugins.stdout
    assert (with_plugins.returncode, with_plugins.stdout, with_plugins.stderr) == (
        0,
        without_plugins.stdout,
        without_plugins.stderr,
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["train", "--model", "goodnet", "--model.width", "0", "--data", "GoodData"],
            "width is 0; it must be 1 or more",
        ),
        (["predict", "--model", "goodnet", "--data", "GoodData", "--data.root", ""], "root is empty; name a folder"),
    ],
)
def test_bad_input_on_the_command_line_is_one_line(
    plugin_packages: PluginPackages, arguments: list[str], line: str
) -> None:
    plugin_packages.install("good", GOOD)
    result = plugin_packages.command("anomalib", *arguments)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"error: {line}"
    assert "Traceback" not in result.stderr + result.stdout


def test_worker_processes_find_the_names_too(plugin_packages: PluginPackages) -> None:
    plugin_packages.install("good", GOOD)
    plugin_packages.install("broken", "raise OSError('no licence')")
    code = """
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context
        from anomalib.models import GoodNet, get_model

        if __name__ == "__main__":
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                print(pool.submit(get_model, "goodnet").result().name, pool.submit(GoodNet, 3).result().width)
    """
    path = plugin_packages.site / "main.py"
    path.write_text("\n".join(line.removeprefix("        ") for line in code.splitlines()))
    result = plugin_packages.run([sys.executable, str(path)])
    assert result.stdout.splitlines()[-1:] == ["GoodNet 3"], result.stderr
    assert result.stderr.count("plugin 'broken' of broken 1.0 is skipped") == 1
