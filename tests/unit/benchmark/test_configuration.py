"""The configuration file of a benchmark, and the runs in it."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomalib_defect_plugins.benchmark.configuration import expand_grids, read_benchmark
from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.results.run_spec import PRECISIONS, RunSpec, resolve_variables


def read(folder: Path, **content: Any) -> tuple[RunSpec, ...]:
    configuration = {
        "name": "test",
        "models": [{"class_path": "Padim"}],
        "data": [{"class_path": "TextureDefects"}],
        **content,
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(configuration))
    return read_benchmark(path).runs


def names(runs: tuple[RunSpec, ...]) -> list[tuple[str, str, str, int]]:
    return [(run.model.name, run.data.name, run.supervision.name, run.seed) for run in runs]


def test_runs_are_ordered_by_model_then_data_then_supervision_then_seed(tmp_path: Path) -> None:
    runs = read(
        tmp_path,
        seeds=[3, 1],
        models=[{"class_path": "Padim"}, {"name": "one", "class_path": "OneStage", "supervision": ["masks"]}],
        data=[{"class_path": "TextureDefects", "init_args": {"category": {"grid": ["grass", "brick"]}}}],
        supervision=[{"name": "normal"}, {"name": "masks", "class_path": "WithDefects", "init_args": {"real": 5}}],
    )
    expected = [
        (model, f"TextureDefects {category}", supervision, seed)
        for model, supervisions in (("Padim", ("normal", "masks")), ("one", ("masks",)))
        for category in ("grass", "brick")
        for supervision in supervisions
        for seed in (3, 1)
    ]
    assert names(runs) == expected


def test_supervision_wraps_the_data_and_without_it_the_data_are_unchanged(tmp_path: Path) -> None:
    wrap = {"class_path": "WithDefects", "init_args": {"synthetic": "noise"}}
    plain, wrapped = read(tmp_path, supervision=[{"name": "normal"}, wrap])
    base = {"class_path": "TextureDefects", "init_args": {}}
    assert plain.datamodule == base
    assert wrapped.datamodule == {"class_path": "WithDefects", "init_args": {"synthetic": "noise", "base": base}}


def test_labels_are_made_of_the_class_the_category_and_the_values_of_grids(tmp_path: Path) -> None:
    runs = read(
        tmp_path,
        models=[
            {"class_path": "anomalib.models.Padim", "init_args": {"n_features": {"grid": [10, 20]}}},
            {"name": "stages", "class_path": "Stfpm", "init_args": {"backbone": {"grid": ["resnet18", "resnet34"]}}},
        ],
        data=[{"class_path": "TextureDefects", "init_args": {"category": "grass"}}],
    )
    assert [run.model.name for run in runs] == [
        "Padim n_features=10",
        "Padim n_features=20",
        "stages resnet18",
        "stages resnet34",
    ]
    assert {run.data.name for run in runs} == {"TextureDefects grass"}


def test_a_list_under_a_name_that_contains_grid_is_one_value() -> None:
    # anomalib 2.7 takes every name that contains "grid" for a grid, and would expand this to two runs.
    (component,) = expand_grids({"class_path": "Net", "init_args": {"grid_size": [4, 8], "a": {"grid": [1]}}}, "models")
    assert component.init_args == {"grid_size": [4, 8], "a": 1}


def test_a_key_does_not_depend_on_labels_or_the_order_of_arguments(tmp_path: Path) -> None:
    arguments = {"backbone": "resnet18", "n_features": 10}
    (run,) = read(tmp_path, models=[{"name": "a", "class_path": "Padim", "init_args": arguments}])
    reordered = dict(reversed(arguments.items()))
    (other,) = read(tmp_path, models=[{"name": "b", "class_path": "Padim", "init_args": reordered}], name="other")
    assert run.key == other.key
    content = (
        '{"data":{"class_path":"TextureDefects","init_args":{}},"measure":{"keep":{"maps":true,"model":true},'
        '"latency":true,"precisions":["FP32","FP16","INT8"]},"model":{"class_path":"Padim","init_args":'
        '{"backbone":"resnet18","n_features":10}},"seed":0,"supervision":{"class_path":null,"init_args":{}},"trainer":{}}'
    )
    assert run.key == hashlib.sha256(content.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [1]},
        {"trainer": {"max_epochs": 3}},
        {"measure": {"latency": False}},
        {"measure": {"seconds": 0.5}},
        {"models": [{"class_path": "Padim", "init_args": {"n_features": 10}}]},
        {"data": [{"class_path": "TextureDefects", "init_args": {"category": "grass"}}]},
        {"supervision": [{"class_path": "WithDefects", "init_args": {"real": 3}}]},
    ],
)
def test_every_other_change_makes_another_run(tmp_path: Path, change: dict[str, Any]) -> None:
    (before,), (after,) = read(tmp_path), read(tmp_path, **change)
    assert before.key != after.key


def test_an_explicit_default_makes_no_other_run(tmp_path: Path) -> None:
    measure = {
        "latency": True,
        "precisions": list(PRECISIONS[::-1]),
        "seconds": 3,
        "keep": {"maps": True, "model": True},
    }
    (before,), (after,) = read(tmp_path), read(tmp_path, measure=measure, seeds=0)
    assert before == after


def test_an_environment_variable_is_read_late_and_makes_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [{"class_path": "MagneticTile", "init_args": {"root": "${oc.env:TILES,./datasets}/tiles"}}]
    (before,) = read(tmp_path, data=data)
    monkeypatch.setenv("TILES", "/elsewhere")
    (after,) = read(tmp_path, data=data)
    assert before.key == after.key
    assert resolve_variables(after.data.specification, 0)["init_args"]["root"] == "/elsewhere/tiles"


def test_the_seed_of_a_run_reaches_the_arguments_of_its_data(tmp_path: Path) -> None:
    masks = {"name": "masks", "class_path": "WithDefects", "init_args": {"real": 5, "seed": "${seed}"}}
    runs = read(tmp_path, seeds=[0, 7], supervision=[masks])
    assert [resolve_variables(run.datamodule, run.seed)["init_args"]["seed"] for run in runs] == [0, 7]
    assert len({run.key for run in runs}) == 2


def test_two_items_of_a_model_may_differ_in_data_and_trainer(tmp_path: Path) -> None:
    data = [
        {"name": category, "class_path": "TextureDefects", "init_args": {"category": category}}
        for category in ("brick", "grass")
    ]
    models = [
        {"class_path": "Supersimplenet", "data": "brick", "trainer": {"max_epochs": 4}},
        {"class_path": "Supersimplenet", "data": "grass"},
    ]
    runs = read(tmp_path, data=data, models=models, trainer={"max_epochs": 9, "accelerator": "cpu"})
    assert [(run.data.name, run.trainer) for run in runs] == [
        ("brick", {"max_epochs": 4, "accelerator": "cpu"}),
        ("grass", {"max_epochs": 9, "accelerator": "cpu"}),
    ]


def test_the_seeds_of_a_model_replace_those_of_all(tmp_path: Path) -> None:
    models = [{"class_path": "Padim", "seeds": 0}, {"class_path": "Patchcore"}]
    runs = read(tmp_path, models=models, seeds=[0, 3])
    assert [(run.model.name, run.seed) for run in runs] == [("Padim", 0), ("Patchcore", 0), ("Patchcore", 3)]


def test_a_run_is_converted_to_plain_json(tmp_path: Path) -> None:
    (run,) = read(tmp_path, trainer={"max_epochs": 2})
    assert run.to_dict() == {
        "model": {"name": "Padim", "class_path": "Padim", "init_args": {}},
        "data": {"name": "TextureDefects", "class_path": "TextureDefects", "init_args": {}},
        "supervision": {"name": "normal", "class_path": None, "init_args": {}},
        "seed": 0,
        "trainer": {"max_epochs": 2},
        "measure": {"latency": True, "precisions": ["FP32", "FP16", "INT8"], "keep": {"maps": True, "model": True}},
    }
    assert replace(run, seed=1).label == "Padim, TextureDefects, normal, seed 1"


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"modles": []}, "the top level has no key 'modles'; it takes data, measure, models, name, seeds"),
    ({"name": "a/b"}, "name is 'a/b'; it must be the name of a folder"),
    ({"name": None}, "name is None"),
    ({"models": []}, "models must be a list of items, each with a class_path"),
    ({"supervision": {"real": 3}}, "supervision must be a list of items, each with a name or a class_path"),
    ({"trainer": {"limit_test_batches": 0}}, "limit_test_batches of trainer is 0, so that nothing would be measured"),
    ({"models": [{"name": "a"}]}, "item 'a' of models has no class_path"),
    ({"models": [{"class_path": "Padim", "init_arg": {}}]}, "item 1 of models has no key 'init_arg'"),
    ({"models": [{"class_path": "Padim", "init_args": [1]}]}, "init_args in item 1 of models is [1]"),
    ({"models": [{"class_path": "Nope"}]}, "model Nope: 'Nope' cannot be created: unknown class; choose one of "),
    (
        {"models": [{"class_path": "TextureDefects"}]},
        "'TextureDefects' cannot be created: unknown class; choose one of ",
    ),
    (
        {"models": [{"class_path": "Padim", "init_args": {"bakbone": "a"}}]},
        "model Padim: ... Option 'bakbone' is not acc",
    ),
    ({"models": [{"class_path": "Padim", "init_args": {"n_features": {"grid": []}}}]}, "a grid of item 'Padim' of mod"),
    (
        {"models": [{"class_path": "Padim"}, {"class_path": "Padim", "init_args": {"n_features": 9}}]},
        "two items of models are called 'Padim'",
    ),
    ({"models": [{"name": n, "class_path": "Padim"} for n in "ab"]}, "'b, TextureDefects ... are the same run"),
    ({"models": [{"class_path": "Padim", "supervision": "few"}]}, "supervision 'few'; it must be one of normal"),
    (
        {"data": [{"class_path": "TextureDefects", "init_args": {"root": "${oc.env:NO_SUCH}"}}]},
        "NO_SUCH ... set it, or write ${oc.env:NAME,default}",
    ),
    ({"supervision": [{"name": "a", "init_args": {"real": 3}}]}, "'a' has init_args and no class_path"),
    ({"supervision": [{"name": "a"}] * 2}, "two entries of the name 'a'"),
    (
        {"supervision": [{"class_path": "Folder"}]},
        "supervision Folder of TextureDefects: ... 'base.class_path' is not accepted",
    ),
    ({"seeds": [1, 1]}, "seeds are [1, 1]"),
    ({"seeds": [-1]}, "seeds are [-1]"),
    ({"models": [{"class_path": "Padim", "seeds": [2, 2]}]}, "seeds are [2, 2]"),
    ({"trainer": {"epochs": 3}}, "trainer has no key 'epochs'"),
    ({"trainer": {"default_root_dir": "x"}}, "trainer has no key 'default_root_dir'"),
    ({"trainer": {"devices": 2}}, "devices of trainer is 2; a run trains on 1"),
    ({"measure": {"precisions": ["FP8"]}}, "precisions of measure are ['FP8']"),
    ({"measure": {"latency": "no"}}, "latency of measure is 'no'"),
    ({"measure": {"seconds": 0}}, "seconds of measure is 0; it must be the time"),
    ({"measure": {"seconds": "3"}}, "seconds of measure is '3'"),
    ({"measure": {"keep": {"images": True}}}, "keep of measure has no key 'images'"),
]


@pytest.mark.parametrize(("content", "line"), INVALID, ids=[line[:30] for _, line in INVALID])
def test_an_invalid_configuration_is_one_line_that_names_the_file(
    tmp_path: Path, content: dict[str, Any], line: str
) -> None:
    with pytest.raises(InvalidInputError, match=r"^configuration .*test\.yaml: [^\n]*$") as error:
        read(tmp_path, **content)
    for part in line.split(" ... "):
        assert part in str(error.value)


@pytest.mark.parametrize("text", ["", "a: [", "- a", "a: 1\na: 2"])
def test_a_file_that_is_not_a_benchmark_is_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=r"configuration .*test\.yaml: "):
        read_benchmark(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no\.yaml not found"):
        read_benchmark(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[3].glob("configs/benchmark/*.yaml")), ids=lambda path: path.stem
)
def test_the_configurations_of_the_repository_are_valid(path: Path) -> None:
    assert read_benchmark(path).name == path.stem
