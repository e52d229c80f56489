"""Writes the reference of the Python interface, from its docstrings, to build/docs: ``make docs``."""

import pkgutil
from importlib import import_module
from pathlib import Path

import pdoc

import anomalib_defect_plugins as package

OWN = {"autoload", "benchmark", "cli", "console", "demo", "new"}
"""Parts that only the command line uses."""


def public_modules() -> list[str]:
    """Names of the package and of what is below it, with the names that they give out in place."""
    parts = [part.name for part in pkgutil.iter_modules(package.__path__) if part.name not in OWN]
    names = [package.__name__, *(f"{package.__name__}.{part}" for part in parts)]
    for module in map(import_module, names):
        # Some are imported when they are first used, and pdoc takes only what is there.
        vars(module).update({name: getattr(module, name) for name in getattr(module, "__all__", ())})
    return names


if __name__ == "__main__":
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*public_modules(), output_directory=Path(__file__).parents[1] / "build" / "docs")
