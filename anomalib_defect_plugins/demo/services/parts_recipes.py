"""What is trained on a user's parts: a benchmark of one run, by what the user has and how much time there is."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_io import read_size
from anomalib_defect_plugins.data.folder_reader import MASKS
from anomalib_defect_plugins.demo.resources import FOLDER
from anomalib_defect_plugins.demo.services.one_photo_training import model_size
from anomalib_defect_plugins.demo.services.parts_folder import PartsSummary, summarize_parts

MULTIPLE = 16
"""Sides of a model's images are multiples of this."""

MIN_GOOD = 5
"""Minimum number of good parts; for a single one there is the One photo tab."""


@lru_cache(maxsize=1)
def _content() -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load((FOLDER / "recipes.yaml").read_text(encoding="utf-8"))
    return content


def recipe_names() -> list[str]:
    """Return what users may have, in words, from little to much."""
    return list(_content()["recipes"])


def budget_names() -> list[str]:
    """Return the times that a training may take, in words."""
    return list(_content()["budgets"])


def best_recipe(parts: PartsSummary) -> str:
    """Return the recipe that makes use of all that there is."""
    names = recipe_names()
    return names[2] if parts.marked else names[1] if parts.bad else names[0]


def check_parts(recipe: str, parts: PartsSummary) -> None:
    """Check that there is what a recipe needs.

    Raises:
        InvalidInputError: If something is missing.
    """
    check_one_of("recipe", recipe, recipe_names())
    if parts.good < MIN_GOOD:
        msg = f"there are {parts.good} good parts; {MIN_GOOD} are needed, or one for the One photo tab"
        raise InvalidInputError(msg)
    number = recipe_names().index(recipe)
    kind, count, least = (("defective", 0, 0), ("defective", parts.bad, 1), ("marked", parts.marked, 2))[number]
    if count < least:
        msg = f"there are {count} {kind} parts and {least} are needed for {recipe!r}; add some, or choose another"
        raise InvalidInputError(msg)


def _model_size(folder: Path, side: int) -> list[int]:
    """Return height and width of a model's images, with the aspect ratio of the first image, so that it keeps it."""
    files = (path for path in sorted(folder.rglob("*.*")) if path.is_file() and MASKS not in path.parts)
    width, height = read_size(next(files))
    return [MULTIPLE * max(1, round(length / MULTIPLE)) for length in model_size(height, width, side)]


def _data_arguments(recipe: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the arguments of the data; with a validation split if there are enough images for it."""
    validation = recipe.get("validation")
    if validation is not None:
        parts = summarize_parts(folder)
        if parts.good >= validation["good"] and parts.marked >= validation["marked"]:
            return {**recipe["data"], **validation["data"]}
    return dict(recipe["data"])


def configuration(name: str, folder: Path, recipe: str, budget: str) -> str:
    """Return the configuration of a benchmark of one run.

    Args:
        name: Name of the model.
        folder: Folder of parts.
        recipe: What the user has, one of :func:`recipe_names`.
        budget: Time for the training, one of :func:`budget_names`.
    """
    check_one_of("recipe", recipe, recipe_names())
    check_one_of("time", budget, budget_names())
    content = _content()
    limits, chosen = content["budgets"][budget], content["recipes"][recipe]
    model = {**content["model"], "name": name, "supervision": "parts"}
    side = limits["image_size"]
    size = _model_size(folder, side)
    model["init_args"] = {**model["init_args"], "image_size": size, "iterations": limits["iterations"]}
    data = {"root": str(folder.absolute()), "num_workers": 0, "train_batch_size": 4}
    data |= _data_arguments(chosen, folder)
    benchmark = {
        "name": name,
        "trainer": content["trainer"],
        "models": [model],
        "data": [{"class_path": "DefectFolder", "init_args": data}],
        "supervision": [{"name": "parts", "class_path": "WithDefects", "init_args": chosen["supervision"]}],
        "measure": content["measure"],
    }
    return yaml.safe_dump(benchmark, sort_keys=False)
