"""``demo/app.py`` with a preset for training on one photo that takes seconds instead of half a minute."""

import runpy
from pathlib import Path

from anomalib_defect_plugins.demo.services.one_photo_training import TrainingSettings
from anomalib_defect_plugins.demo.tabs import one_photo

one_photo.PRESETS[next(iter(one_photo.PRESETS))] = TrainingSettings(96, 4, 15)
runpy.run_path(str(Path(__file__).parents[2] / "demo/app.py"), run_name="__main__")
