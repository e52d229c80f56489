"""``anomalib-defects new``: write a package with a plugin to start from."""

import argparse
import sys
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Write a package with a plugin: a model that can be trained, a test that checks the contract of all models, "
        "and a README. Once it is installed, anomalib and this command find its model by name."
    )
    command = commands.add_parser(
        "new", help="write a package with a plugin to start from", description=about, allow_abbrev=False
    )
    command.add_argument("name", metavar="NAME", help="name of the package, such as my-method; its model is my_method")
    command.add_argument("--out", type=Path, metavar="DIR", help="folder to create; default: NAME")
    command.add_argument("--author", metavar="AUTHOR", help="author for pyproject.toml")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
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
