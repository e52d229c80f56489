"""Plugins in anomalib: its functions, its command line, and any order of imports."""

import json
import sys
from typing import Any

import pytest
from plugin_packages import GOOD, PluginPackages

pytestmark = pytest.mark.slow

USE_GOOD_NET = """
    import contextlib
    import io
    import json
    import pathlib
    import sys

    sys.argv = ["anomalib"]  # errors are one line in this program only

    import anomalib.data
    from anomalib.cli.cli import AnomalibCLI, main
    from anomalib.data import get_datamodule, transforms
    from anomalib.models import get_model, list_models


    def configuration(*arguments):
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            AnomalibCLI(["train", *arguments, "--print_config"])
        return printed.getvalue()


    def unknown():
        try:
            anomalib.data.Nothing
        except AttributeError as error:
            return [str(error), hasattr(anomalib.data, "Nothing"), transforms.__name__]


    def error_line(*arguments):
        sys.argv = ["anomalib", *arguments]
        with contextlib.redirect_stderr(io.StringIO()) as printed, contextlib.redirect_stdout(printed):
            try:
                main()
            except BaseException:
                sys.excepthook(*sys.exc_info())  # as the interpreter does
        return printed.getvalue()


    def dumped():
        text = configuration("--model", "goodnet", "--model.width", "4", "--data", "GoodData")
        pathlib.Path("dumped.yaml").write_text(text)
        pathlib.Path("again.yaml").write_text(configuration("--config", "dumped.yaml"))
        cli = AnomalibCLI(["train", "--config", "again.yaml"], run=False)
        return [type(cli.model).__name__, cli.model.name, cli.model.width, cli.datamodule.name]


    print(json.dumps({
        "by name": get_model("goodnet", width=3).width,
        "by class path": get_model({"class_path": "GoodNet", "init_args": {"width": 4}}).width,
        "by registered name": type(get_model({"class_path": "goodnet"})).__name__,
        "by dumped path": get_model({"class_path": "anomalib.models.goodnet"}).name,
        "listed": sorted(name for name in list_models() if "good" in name),
        "data": get_datamodule({"class_path": "GoodData"}).name,
        "GoodNet": configuration("--model", "GoodNet", "--model.width", "5"),
        "full path": configuration("--model", "good.GoodNet", "--model.width", "6"),
        "dumped": dumped(),
        "first dump": pathlib.Path("dumped.yaml").read_text(),
        "unknown": unknown(),
        "Padim": configuration("--model", "Padim", "--data", "MVTecAD"),
        "error": error_line("predict", "--model", "goodnet", "--data", "GoodData", "--data.root", ""),
    }))
"""
"""Program that uses a plugin in every way that needs no new process, because imports take seconds."""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program found, and its standard error as ``stderr``."""
    site = tmp_path_factory.mktemp("used") / "site"
    site.mkdir()
    packages = PluginPackages(site)
    packages.install("good", GOOD)
    result = packages.python(USE_GOOD_NET)
    assert result.returncode == 0, result.stderr
    return {**json.loads(result.stdout.splitlines()[-1]), "stderr": result.stderr}


def stripped(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()}


def test_every_way_to_name_a_class_finds_it(used: dict[str, Any]) -> None:
    assert "skipped" not in used["stderr"]
    assert used["by name"] == 3
    assert used["by class path"] == 4
    assert used["by registered name"] == "GoodNet"
    assert used["by dumped path"] == "GoodNet"
    assert used["listed"] == ["good_net"]
    assert used["data"] == "good"
    expected = {"class_path: anomalib.models.goodnet", "width: 4", "class_path: good.GoodData"}
    assert expected <= stripped(used["first dump"])
    assert {"class_path: good.GoodNet", "width: 5"} <= stripped(used["GoodNet"])
    assert {"class_path: good.GoodNet", "width: 6"} <= stripped(used["full path"])


def test_a_dumped_configuration_can_be_read_again(used: dict[str, Any]) -> None:
    assert used["dumped"] == ["GoodNet", "GoodNet", 4, "good"]


ORDERS = {
    "the data first": "import sys, anomalib.data\nassert 'anomalib.models' not in sys.modules\nimport anomalib.models",
    "data alone": "from anomalib.data import GoodData, get_datamodule\nget_datamodule({'class_path': 'GoodData'})",
    "this package first": "import anomalib_defect_plugins.plugins.bridge\nimport anomalib.models.components",
    "after a failure": "import contextlib\nwith contextlib.suppress(ZeroDivisionError):\n    import fails",
}


@pytest.mark.parametrize(
    "order",
    [pytest.param(code, id=name, marks=() if "data" in name else pytest.mark.long) for name, code in ORDERS.items()],
)
def test_names_are_available_whatever_is_imported_first(plugin_packages: PluginPackages, order: str) -> None:
    plugin_packages.install("good", GOOD)
    (plugin_packages.site / "fails.py").write_text("import anomalib.models\n1 / 0\n")
    check = "import anomalib.models, anomalib.data\nassert anomalib.models.GoodNet and anomalib.data.GoodData\n"
    result = plugin_packages.python(f"{order}\n{check}assert anomalib.models.get_model('goodnet')")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_an_unknown_name_is_an_ordinary_attribute_error(used: dict[str, Any]) -> None:
    message = "module 'anomalib.data' has no attribute 'Nothing'"
    assert used["unknown"] == [message, False, "anomalib.data.transforms"]


CONFIGURE_WITHOUT_AUTOLOADING = """
    import contextlib, io, json
    from anomalib.cli.cli import AnomalibCLI

    texts = []
    for arguments in (
        ["--model=Padim", "--data=MVTecAD"], ["--model=anomalib_defect_plugins.HtpGan", "--data=good.GoodData"]
    ):
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            AnomalibCLI(["train", *arguments, "--print_config"])
        texts.append(printed.getvalue())
    print(json.dumps(texts))
"""


def test_without_autoloading_full_class_paths_work_and_models_of_anomalib_are_configured_alike(
    plugin_packages: PluginPackages, used: dict[str, Any]
) -> None:
    plugin_packages.install("good", GOOD)
    result = plugin_packages.python(CONFIGURE_WITHOUT_AUTOLOADING, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert result.returncode == 0, result.stderr
    padim, own = json.loads(result.stdout.splitlines()[-1])
    assert "class_path: anomalib.models.Padim" in padim
    assert padim == used["Padim"]
    assert {"class_path: anomalib_defect_plugins.HtpGan", "class_path: good.GoodData"} <= stripped(own)


def test_bad_input_for_data_is_one_line(used: dict[str, Any]) -> None:
    assert used["error"].splitlines()[-1] == "error: root is empty; name a folder"
    assert "Traceback" not in used["error"]


def test_the_installed_command_prints_bad_input_in_one_line_and_exits_with_one(plugin_packages: PluginPackages) -> None:
    plugin_packages.install("good", GOOD)
    arguments = ["--model", "goodnet", "--model.width", "0", "--data", "GoodData"]
    result = plugin_packages.command("anomalib", "train", *arguments)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "error: width is 0; it must be 1 or more"
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.long
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
