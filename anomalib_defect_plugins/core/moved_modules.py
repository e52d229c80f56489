"""Import paths from before the package was reorganised. They work until version 0.2, with a warning.

Names that were changed at the same time are found by their new name only.
"""

import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

PACKAGE = "anomalib_defect_plugins"

MOVED = {
    "benchmark.curves": ("metrics.ranking",),
    "benchmark.inspect": ("inference.inspect_folder",),
    "benchmark.inspection": ("inference.openvino", "core.image_io"),
    "benchmark.report": ("report",),
    "benchmark.report.reading": ("results.reader", "results.record"),
    "benchmark.results": ("results.folder",),
    "benchmark.run": ("results.run_spec",),
    "console": ("core.errors", "core.environment", "plugins.excepthook"),
    "data.atomic": ("core.files",),
    "data.base": ("data.dataset", "core.image_files", "core.image_io"),
    "data.codebrim": ("data.datasets.codebrim",),
    "data.crack_forest": ("data.datasets.crack_forest",),
    "data.dagm2007": ("data.datasets.dagm2007",),
    "data.defect_folder": ("data.datasets.defect_folder",),
    "data.items": ("data.dataclasses",),
    "data.kolektor_sdd": ("data.datasets.kolektor_sdd",),
    "data.magnetic_tile": ("data.datasets.magnetic_tile",),
    "data.module": ("data.datamodule",),
    "data.samples": ("data.sample_table",),
    "data.selection": ("data.defect_selection",),
    "data.supervision": ("data.with_defects",),
    "data.synthetic_folder": ("synthesis.folder",),
    "data.texture_defects": ("data.datasets.texture_defects",),
    "data.wood_defects": ("data.datasets.wood_defects",),
    "errors": ("core.errors", "core.checks"),
    "generators.base": ("core.defect_generator",),
    "generators.defectgan": ("models.defectgan.generator",),
    "generators.draws": ("generators.geometry", "core.rng", "core.checks"),
    "generators.names": ("plugins.generators",),
    "models.cutpaste.density": ("layers.density",),
    "models.cutpaste.normal_images": ("models.components.normal_images",),
    "models.cutpaste.reference_images": ("models.components.normal_images",),
    "models.defectgan.arguments": ("models.defectgan.validation",),
    "models.defectgan.inspection": ("models.defectgan.defect_classifier",),
    "models.isugan.items": ("models.isugan.dataclasses",),
    "models.augmentation": ("models.components.augmentation",),
    "models.checkpoints": ("models.components.checkpoint_io",),
    "models.iterative": ("models.components.deprecated",),
    "models.own_batches": ("models.components.deprecated",),
    "models.pairs": ("models.components.unpaired_loader",),
    "models.training": ("models.components.checks", "models.components.callbacks", "core.checks"),
    "quality": ("synthesis.quality_report",),
    "specification": ("plugins.instantiate",),
    "supervision": ("core.supervision",),
    "synthesize": ("synthesis.synthesizer",),
}
"""Former modules, and where their names are now, in the order in which they are searched."""


ADVICE = {
    "models.iterative": "DefectModel and IterativeTraining in anomalib_defect_plugins.models.components",
    "models.own_batches": "DefectModel and CustomTrainLoader in anomalib_defect_plugins.models.components",
}
"""What to use instead of modules whose classes were divided anew."""


class MovedModuleLoader:
    """Creates the modules of :data:`MOVED` as aliases."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the creation of the module to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Make the module look its names up where they are now."""
        former = module.__name__
        homes = [f"{PACKAGE}.{home}" for home in MOVED[former.partition(".")[2]]]

        def find(name: str) -> object:
            for home in homes:
                module_of_name = import_module(home)
                if hasattr(module_of_name, name):
                    return getattr(module_of_name, name)
            msg = f"module {former!r} has no attribute {name!r}"
            raise AttributeError(msg)

        setattr(module, "__getattr__", find)  # noqa: B010  (a module attribute, PEP 562)
        shown = ADVICE.get(former.partition(".")[2], " and ".join(homes))
        message = f"{former} has moved to {shown}; the old path works until version 0.2"
        warnings.warn(message, FutureWarning, stacklevel=2)


def find_moved(fullname: str) -> ModuleSpec | None:
    """Return a spec for a former module, ``None`` for any other."""
    package, _, name = fullname.partition(".")
    if package != PACKAGE or name not in MOVED:
        return None
    return ModuleSpec(fullname, cast(Any, MovedModuleLoader()), is_package=True)
