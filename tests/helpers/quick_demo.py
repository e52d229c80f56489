"""``demo/app.py`` with trainings that take seconds: on one photo, and on parts in "about a minute"."""

import runpy
from pathlib import Path

from anomalib_defect_plugins.cli.telemetry import disable_telemetry

disable_telemetry()  # as the command does before it imports the demo

from anomalib_defect_plugins.demo.services import one_photo_training, parts_recipes  # noqa: E402
from anomalib_defect_plugins.demo.services.one_photo_training import TrainingSettings  # noqa: E402
from anomalib_defect_plugins.demo.tabs import one_photo  # noqa: E402

parts_recipes._content()["budgets"][parts_recipes.budget_names()[0]] |= {"image_size": 64, "iterations": 4}
one_photo_training.GRACE_S = 10.0  # a training whose page was closed would use a core during the next tests
one_photo.PRESETS[next(iter(one_photo.PRESETS))] = TrainingSettings(96, 4, 30)
runpy.run_path(str(Path(__file__).parents[2] / "demo/app.py"), run_name="__main__")
