"""``demo/app.py`` with trainings that take seconds: on one photo, and on parts in "about a minute"."""

import runpy
from pathlib import Path

from anomalib_defect_plugins.demo.services import parts_recipes
from anomalib_defect_plugins.demo.services.one_photo_training import TrainingSettings
from anomalib_defect_plugins.demo.tabs import one_photo

parts_recipes._content()["budgets"][parts_recipes.budget_names()[0]] |= {"image_size": 64, "iterations": 4}
one_photo.PRESETS[next(iter(one_photo.PRESETS))] = TrainingSettings(96, 4, 15)
runpy.run_path(str(Path(__file__).parents[2] / "demo/app.py"), run_name="__main__")
