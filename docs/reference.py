"""Build the API reference from the docstrings in ``build/docs``; run by ``make docs``."""

import pkgutil
from importlib import import_module
from pathlib import Path

import pdoc

import anomalib_defect_plugins as package

INTERNAL = {"autoload", "benchmark", "cli", "demo", "inference", "report", "results", "scaffold"}
"""Modules that only the command line and the entry point use."""


def public_modules() -> list[str]:
    """Return the names of the package and its public modules, with all their exported names loaded."""
    modules = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in INTERNAL]
    names = [package.__name__, *(f"{package.__name__}.{module}" for module in modules)]
    for module in map(import_module, names):
        # Some names are imported lazily, and pdoc documents only those in the namespace.
        vars(module).update({name: getattr(module, name) for name in getattr(module, "__all__", ())})
    return names


if __name__ == "__main__":
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*public_modules(), output_directory=Path(__file__).parents[1] / "build" / "docs")
