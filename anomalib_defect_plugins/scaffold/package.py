"""Writes the package of a new plugin from templates."""

import importlib.metadata
import importlib.util
import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import new_folder
from anomalib_defect_plugins.plugins import Kind, loaded_plugins, taken_names

NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")

FILES = {
    ".gitignore": "gitignore.jinja",
    "README.md": "README.md.jinja",
    "pyproject.toml": "pyproject.toml.jinja",
    "tests/test_{module}.py": "contract.py.jinja",
    "{module}/__init__.py": "module/__init__.py.jinja",
    "{module}/lightning_model.py": "module/lightning_model.py.jinja",
    "{module}/torch_model.py": "module/torch_model.py.jinja",
}
"""Files of a package, with ``{module}`` for its module, and their templates."""


@dataclass(frozen=True)
class Names:
    """Names of a plugin: distribution, module and model, class."""

    distribution: str
    """Distribution, such as ``my-method``."""
    module: str
    """Package, and model on the command line, such as ``my_method``."""
    cls: str
    """Class of the model, such as ``MyMethod``."""

    @classmethod
    def of(cls, name: str) -> "Names":
        """Derive all names from one.

        Args:
            name: Letters and digits, starting with a letter, in parts joined by ``-`` or ``_``.

        Raises:
            InvalidInputError: If it is not a valid name of a Python module.
        """
        parts = re.split("[-_]", name)
        module = "_".join(parts).lower()
        class_name = "".join(part[0].upper() + part[1:] for part in parts if part)
        if not NAME.fullmatch(name) or keyword.iskeyword(module) or keyword.iskeyword(class_name):
            msg = (
                f"{name!r} is not a valid name of a Python package; use letters and digits, starting with a letter, "
                "joined by '-', such as my-method"
            )
            raise InvalidInputError(msg)
        return cls(module.replace("_", "-"), module, class_name)


def write_package(names: Names, folder: Path, author: str | None = None) -> Path:
    """Write a package that installs, trains and passes its tests without changes.

    Args:
        names: Names of the plugin.
        folder: Folder to create; it appears complete or not at all.
        author: Author for ``pyproject.toml``, one line.

    Returns:
        The folder.

    Raises:
        InvalidInputError: If the folder exists or cannot be written, a name is in use, or the author is not a line of
            text.
    """
    _check_free(names)
    if folder.exists() or folder.is_symlink():
        msg = f"{folder} exists; pass another folder with --out"
        raise InvalidInputError(msg)
    if author is not None and not (author.isprintable() and author.strip()):
        msg = f"--author is {author!r}; it must be a name in one line"
        raise InvalidInputError(msg)
    texts = _render(names, author)
    with new_folder(folder, "--out") as unfinished:
        _write(texts, unfinished)
    return folder


def _check_free(names: Names) -> None:
    taken = taken_names(Kind.MODEL)
    for name in (names.module, names.cls.lower()):
        if name in taken:
            msg = f"the model name '{name}' is taken by {taken[name]}; choose another"
            raise InvalidInputError(msg)
    for plugin in loaded_plugins():
        if names.distribution in {plugin.name.lower(), plugin.distribution.lower()}:
            msg = f"the name '{names.distribution}' is taken by {plugin}; choose another"
            raise InvalidInputError(msg)
    if importlib.util.find_spec(names.module) is not None:
        msg = f"a Python module '{names.module}' exists, which the package would shadow; choose another name"
        raise InvalidInputError(msg)


def _render(names: Names, author: str | None) -> dict[str, str]:
    """Return the text of each file by its path."""
    loader = PackageLoader(__package__)
    # Python, TOML and Markdown must not be HTML-escaped.
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    values = {
        **{name: getattr(names, name) for name in ("distribution", "module", "cls")},
        "author": None if author is None else _toml_string(author.strip()),
        "version": importlib.metadata.version("anomalib-defect-plugins"),
    }
    return {
        path.format(module=names.module): environment.get_template(template).render(values)
        for path, template in FILES.items()
    }


def _write(texts: dict[str, str], folder: Path) -> None:
    for path, text in texts.items():
        file = folder / path
        try:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            msg = f"cannot write {path} ({error.strerror}), so nothing was written; pass another folder with --out"
            raise InvalidInputError(msg) from error


def _toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
