"""``configs/METHOD/paper.yaml``: every argument is written out, so that other defaults do not change the experiment."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from anomalib.models.components import AnomalibModule
from tiny_models import CLASSES

from anomalib_defect_plugins.benchmark.training_configuration import insert_configurations, parse_yaml
from anomalib_defect_plugins.plugins.instantiate import build

CONFIGS = Path(__file__).parents[3] / "configs"

COMPONENTS = {"pre_processor", "post_processor", "evaluator", "visualizer"}


def model_section(method: str) -> dict[str, Any]:
    content = yaml.safe_load((CONFIGS / method / "paper.yaml").read_text(encoding="utf-8"))
    section: dict[str, Any] = content["model"]
    return section


@pytest.mark.parametrize("method", CLASSES)
def test_every_argument_is_written_out_and_the_model_can_be_created(method: str) -> None:
    section = model_section(method)
    assert set(section["init_args"]) == set(inspect.signature(CLASSES[method]).parameters) - COMPONENTS
    model = build(AnomalibModule, section, "the paper's model")
    assert type(model) is CLASSES[method]
    assert model.image_size == tuple(section["init_args"]["image_size"])


def test_the_benchmark_of_the_papers_uses_exactly_these_arguments() -> None:
    folder = CONFIGS / "benchmark"
    content = insert_configurations(parse_yaml((folder / "papers.yaml").read_text(encoding="utf-8")), folder)
    used = {item["class_path"]: item["init_args"] for item in content["models"] if item["name"] != "PaDiM"}
    sections = [model_section(method) for method in CLASSES]
    assert used == {section["class_path"]: section["init_args"] for section in sections}


def test_the_ablations_of_sidn_differ_from_its_paper_as_in_table_2() -> None:
    folder = CONFIGS / "benchmark"
    content = parse_yaml((folder / "sidn_ablations.yaml").read_text(encoding="utf-8"))
    paper = model_section("sidn")["init_args"]
    networks = [
        build(AnomalibModule, {key: item[key] for key in ("class_path", "init_args")}, "an ablation")
        for item in insert_configurations(content, folder)["models"]
    ]
    switches = [(model.clustering, model.center_separation, model.model.texture.gsrm is not None) for model in networks]
    assert switches == [(False, False, False), (True, False, False), (True, True, False), (True, True, True)]
    for item in insert_configurations(content, folder)["models"]:
        changed = {key for key, value in item["init_args"].items() if value != paper[key]}
        assert changed <= {"clustering", "center_separation", "gsrm"}
