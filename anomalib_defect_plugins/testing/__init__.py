"""Test classes for plugins: the contract that models, data modules and defect generators must pass. Requires pytest.

A model without an optimiser, such as PaDiM, derives its tests from ``ModelContract``::

    from anomalib_defect_plugins.testing import ModelContract

    class TestMyModel(ModelContract):
        def make_model(self, image_size):
            return MyModel(pre_processor=MyModel.configure_pre_processor(image_size))

A model with an optimiser uses ``TrainingContract``, which adds tests of training. A data module::

    class TestMyData(DataModuleContract):
        def config(self, root):
            return {"class_path": "my_package.MyData", "init_args": {"root": str(root), "num_workers": 0}}

A defect generator uses ``GeneratorContract`` and implements ``make_generator()``.

Each inherited test checks the behaviour in its name. All tests of a class share one trained model, so the contract of a
small model takes well under a minute on one core. Use the smallest settings that the method allows, and random weights:
nothing is downloaded.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("model", "training", "datamodule", "generator")))

from anomalib_defect_plugins.testing.data import folder_datamodule, write_folder_data  # noqa: E402 - the modules must be registered first
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
