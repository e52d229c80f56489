"""Models of a benchmark that are those of a configuration of ``anomalib train``."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from anomalib_defect_plugins.benchmark.configuration import Benchmark, read_benchmark
from anomalib_defect_plugins.core.errors import InvalidInputError

ARGUMENTS = {"n_features": 10, "layers": ["layer1"], "pre_trained": False}


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """Return the path of a training configuration, ``configs/padim.yaml``."""
    path = tmp_path / "configs/padim.yaml"
    path.parent.mkdir()
    model = {"class_path": "Padim", "init_args": ARGUMENTS}
    path.write_text(yaml.safe_dump({"seed_everything": 0, "model": model, "data": {"class_path": "TextureDefects"}}))
    return path


def read(folder: Path, *models: dict[str, Any]) -> Benchmark:
    """Write and read ``benchmarks/test.yaml``."""
    path = folder / "benchmarks/test.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({"name": "test", "models": models, "data": [{"class_path": "TextureDefects"}]}))
    return read_benchmark(path)


def test_a_path_relative_to_the_benchmark_gives_the_class_and_the_arguments(training: Path, tmp_path: Path) -> None:
    (run,) = read(tmp_path, {"config": "../configs/padim.yaml"}).runs
    assert (run.model.name, run.model.class_path, run.model.init_args) == ("Padim", "Padim", ARGUMENTS)
    (absolute,) = read(tmp_path, {"config": str(training)}).runs
    (written_out,) = read(tmp_path, {"class_path": "Padim", "init_args": ARGUMENTS}).runs
    assert run.key == absolute.key == written_out.key


@pytest.mark.usefixtures("training")
def test_arguments_of_the_item_replace_those_of_the_file_and_may_be_grids(tmp_path: Path) -> None:
    item = {"config": "../configs/padim.yaml", "init_args": {"n_features": {"grid": [5, 6]}, "layers": ["layer2"]}}
    runs = read(tmp_path, item).runs
    assert [run.model.init_args for run in runs] == [
        {"n_features": count, "layers": ["layer2"], "pre_trained": False} for count in (5, 6)
    ]


def test_a_change_of_the_training_configuration_makes_another_run(training: Path, tmp_path: Path) -> None:
    (before,) = read(tmp_path, {"config": "../configs/padim.yaml"}).runs
    training.write_text(training.read_text().replace("n_features: 10", "n_features: 20"))
    (after,) = read(tmp_path, {"config": "../configs/padim.yaml"}).runs
    assert before.key != after.key


@pytest.mark.usefixtures("training")
def test_the_text_that_results_keep_is_the_same_benchmark_in_any_folder(tmp_path: Path) -> None:
    benchmark = read(tmp_path, {"name": "paper", "config": "../configs/padim.yaml"}, {"class_path": "Stfpm"})
    (tmp_path / "results").mkdir()
    copy = tmp_path / "results/benchmark.yaml"
    copy.write_text(benchmark.text)
    assert [run.key for run in read_benchmark(copy).runs] == [run.key for run in benchmark.runs]
    assert read_benchmark(copy).text == benchmark.text


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"config": "no.yaml"}, r"config of item 2 of models, .*no\.yaml, cannot be read \(No such file or directory\)"),
    ({"config": "no_model.yaml"}, r"no_model\.yaml, has no section model with a class_path"),
    ({"config": "no_class.yaml"}, r"no_class\.yaml, has no section model with a class_path"),
    ({"config": "list.yaml"}, r"init_args of model in .*list\.yaml is \[1\]; it must be a mapping"),
    ({"config": "broken.yaml"}, r"config of item 2 of models, .*broken\.yaml, cannot be read \(while parsing"),
    ({"config": "number.yaml"}, r"number\.yaml, has no section model"),
    ({"config": 3}, "config of item 2 of models is 3; it must be the path of a file"),
    ({"config": "list.yaml", "class_path": "Padim"}, "item 2 of models has a config and a class_path; remove one"),
    ({"config": "good.yaml", "init_args": [1]}, r"init_args in item 2 of models is \[1\]; it must be a mapping"),
]


@pytest.mark.parametrize(("item", "line"), INVALID)
def test_an_invalid_one_is_one_line_that_names_file_and_place(item: dict[str, Any], line: str, tmp_path: Path) -> None:
    files = {
        "good": "model: {class_path: Padim}",
        "no_model": "data: {class_path: TextureDefects}",
        "no_class": "model: {init_args: {}}",
        "list": "model: {class_path: Padim, init_args: [1]}",
        "broken": "model: [",
        "number": "3",
    }
    (tmp_path / "benchmarks").mkdir()
    for name, text in files.items():
        (tmp_path / f"benchmarks/{name}.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=rf"^configuration [^\n]*test\.yaml: [^\n]*{line}[^\n]*$"):
        read(tmp_path, {"class_path": "Padim"}, item)
