"""Plugins that fail, claim taken names or are disabled: each is named in one line and affects no other."""

import json

import pytest
from plugin_packages import GOOD, MODEL, PluginPackages

pytestmark = pytest.mark.slow

NO_MODEL = """
    from anomalib_defect_plugins.plugins import hookimpl


    class NoModel:
        pass


    @hookimpl
    def register_models(register):
        register(NoModel)
"""

FAILS_AT_THE_END = """
    from anomalib import LearningType
    from anomalib.models import AnomalibModule


    class Ganomaly(AnomalibModule):
        trainer_arguments = {}
        learning_type = LearningType.ONE_CLASS


    raise OSError("no licence for this machine")
"""

REASONS = {
    "raises": "OSError: no licence for this machine",
    "takes-padim": "the model name 'padim' is taken by anomalib ",
    "takes-htpgan": "the model name 'htpgan' is taken by plugin 'htpgan' of anomalib-defect-plugins ",
    "no-model": "the model no_model.NoModel is no subclass of AnomalibModule",
    "alpha": "the model name 'twinnet' is claimed by plugin 'beta' of beta 1.0 too",
    "beta": "the model name 'twinnet' is claimed by plugin 'alpha' of alpha 1.0 too",
}

USE_OTHER_CLASSES = """
    import contextlib
    import io

    from anomalib.cli.cli import AnomalibCLI
    from anomalib.models import get_model, list_models, Padim
    import anomalib_defect_plugins

    assert get_model("goodnet").name == "GoodNet"
    assert type(get_model("padim", pre_trained=False)) is Padim
    assert type(get_model("htpgan")) is anomalib_defect_plugins.HtpGan
    assert get_model("ganomaly").__module__.startswith("anomalib.")
    assert "twin_net" not in list_models()
    assert sorted(list_models("pascal")).count("Padim") == 1

    for name in ("Padim", "Ganomaly", "HtpGan", "htpgan", "goodnet", "GoodNet"):
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            AnomalibCLI(["train", "--model", name, "--print_config"])
        assert f".{name}\\n" in printed.getvalue(), name
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        AnomalibCLI(["train", "--model", "alpha.TwinNet", "--print_config"])
    assert "class_path: alpha.TwinNet" in printed.getvalue()
    print("done")
"""


@pytest.fixture
def mixed_packages(plugin_packages: PluginPackages) -> PluginPackages:
    """One good plugin and one of each kind of bad plugin."""
    plugin_packages.install("good", GOOD)
    plugin_packages.install("raises", FAILS_AT_THE_END)
    plugin_packages.install("takes-padim", MODEL.format(name="Padim"))
    plugin_packages.install("takes-htpgan", MODEL.format(name="HtpGan"))
    plugin_packages.install("no-model", NO_MODEL)
    plugin_packages.install("alpha", MODEL.format(name="TwinNet"))
    plugin_packages.install("beta", MODEL.format(name="TwinNet"))
    return plugin_packages


def test_each_bad_plugin_is_named_once_and_everything_else_works(mixed_packages: PluginPackages) -> None:
    result = mixed_packages.python(USE_OTHER_CLASSES)
    assert result.stdout.splitlines()[-1:] == ["done"], result.stderr
    lines = [line for line in result.stderr.splitlines() if "skipped" in line]
    assert len(lines) == len(REASONS)
    for name, reason in REASONS.items():
        assert sum(line.startswith(f"plugin '{name}' of {name} 1.0 is skipped: {reason}") for line in lines) == 1


def test_importing_torch_alone_neither_fails_nor_prints(mixed_packages: PluginPackages) -> None:
    code = "import sys, torch; assert not any(name.split('.')[0] in ('anomalib', 'pluggy') for name in sys.modules)"
    result = mixed_packages.python(code, ANOMALIB_DEFECT_PLUGINS_STRICT="1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_in_strict_mode_a_bad_plugin_is_a_one_line_error(plugin_packages: PluginPackages) -> None:
    plugin_packages.install("raises", FAILS_AT_THE_END)
    result = plugin_packages.command("anomalib", "train", "--help", ANOMALIB_DEFECT_PLUGINS_STRICT="1")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == f"error: plugin 'raises' of raises 1.0 is skipped: {REASONS['raises']}\n"


LIST_TWICE = """
    from anomalib_defect_plugins.cli import main

    raise SystemExit(main(["list", "--json"]) or main(["list"]))
"""


def test_the_list_shows_the_state_of_every_plugin_and_is_a_table_with_one_line_per_row(
    mixed_packages: PluginPackages,
) -> None:
    disabled = "takes-padim,Takes-HtpGan,nobody"
    result = mixed_packages.python(LIST_TWICE, ANOMALIB_DEFECT_PLUGINS_DISABLE=disabled)
    assert result.returncode == 0, result.stderr
    listed, table = result.stdout.split("\n]\n")
    rows = {row["name"]: row for row in json.loads(listed + "]")}
    assert (rows["goodnet"]["kind"], rows["goodnet"]["state"]) == ("model", "loaded")
    assert (rows["GoodData"]["kind"], rows["GoodData"]["plugin"], rows["GoodData"]["version"]) == (
        "data",
        "good",
        "1.0",
    )
    assert (rows["htpgan"]["kind"], rows["htpgan"]["supervision"]) == ("model", "one-shot")
    assert rows["htpgan"]["distribution"] == "anomalib-defect-plugins"
    assert rows["htpgan"]["paper"]
    assert rows["TextureDefects"]["kind"] == rows["CrackForest"]["kind"] == "data"
    assert {rows[name]["state"] for name in ("takes-padim", "takes-htpgan")} == {"disabled"}
    for name in ("raises", "no-model", "alpha", "beta"):
        assert rows[name]["state"] == "failed"
        assert rows[name]["reason"].startswith(REASONS[name])
    assert "ANOMALIB_DEFECT_PLUGINS_DISABLE names no plugin: nobody" in result.stderr
    for column in ("name", "kind", "supervision", "paper", "distribution", "version", "state"):
        assert column in table.splitlines()[1]
    (line,) = [line for line in table.splitlines() if "goodnet" in line]
    cells = ["goodnet", "model", "-", "-", "good", "1.0", "loaded"]
    assert [cell.strip() for cell in line.strip("│").split("│")] == cells


def test_the_whole_package_can_be_disabled(mixed_packages: PluginPackages) -> None:
    code = """
        import anomalib.models
        from anomalib_defect_plugins.cli import main

        assert not hasattr(anomalib.models, "HtpGan")
        main(["list", "--json"])
    """
    result = mixed_packages.python(code, ANOMALIB_DEFECT_PLUGINS_DISABLE="all")
    assert (result.returncode, result.stderr) == (0, "")
    assert {row["state"] for row in json.loads(result.stdout)} == {"disabled"}
