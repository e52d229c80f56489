"""The contract that models, data modules and defect generators must pass, for any plugin's own tests (needs pytest).

A model that only fits itself to features, as PaDiM does::

    from anomalib_defect_plugins.testing import ModelContract

    class TestMyModel(ModelContract):
        def make_model(self, image_size):
            return MyModel(pre_processor=MyModel.configure_pre_processor(image_size))

A model with an optimiser derives from ``TrainingContract`` instead, which adds what only training can break. A data
module::

    class TestMyData(DataModuleContract):
        def config(self, root):
            return {"class_path": "my_package.MyData", "init_args": {"root": str(root), "num_workers": 0}}

A generator of defects derives from ``GeneratorContract`` and implements ``make_generator()``.

Each test method of these classes is one promise, and its name says which. The trained model is shared by a class's
tests, so the whole contract of a small model takes well under a minute on one core. Settings should be as small as the
method allows, and weights random: nothing is downloaded.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("model", "training", "datamodule", "generator")))

from anomalib_defect_plugins.testing.data import folder_datamodule, write_folder_data  # noqa: E402 - after the line above, or asserts say nothing
from anomalib_defect_plugins.testing.datamodule import DataModuleContract  # noqa: E402
from anomalib_defect_plugins.testing.generator import GeneratorContract  # noqa: E402
from anomalib_defect_plugins.testing.model import ModelContract  # noqa: E402
from anomalib_defect_plugins.testing.training import TrainingContract  # noqa: E402

__all__ = [
    "DataModuleContract",
    "GeneratorContract",
    "ModelContract",
    "TrainingContract",
    "folder_datamodule",
    "write_folder_data",
]
