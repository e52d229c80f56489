"""The command ``anomalib-defects new``."""

import argparse
import sys
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    about = (
        "Write a package with a plugin: a model that trains as it is, a test that holds it to the contract of all "
        "models, a README. Install it, and anomalib and this command know its model by name."
    )
    command = commands.add_parser(
        "new", help="write a package with a plugin of your own", description=about, allow_abbrev=False
    )
    command.add_argument("name", metavar="NAME", help="name of the package, such as my-method; its model is my_method")
    command.add_argument("--out", type=Path, metavar="DIR", help="folder to write, which must not exist; NAME here")
    command.add_argument("--author", metavar="AUTHOR", help="who wrote it, for pyproject.toml")
    command.set_defaults(run=_new)


def _new(options: argparse.Namespace) -> int:
    from anomalib_defect_plugins.scaffold.package import Names, write_package

    names = Names.of(options.name)
    folder = write_package(names, options.out or Path(names.distribution), options.author)
    sys.stdout.write(
        f"{folder}: the package {names.distribution} with the model {names.module}\n"
        f"install: python -m pip install --editable '{folder}[test]'\n"
        f"test:    python -m pytest {folder}\n"
        f"train:   anomalib train --model {names.module} --data TextureDefects\n"
    )
    return 0
