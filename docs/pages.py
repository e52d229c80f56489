"""Collect the pages of the site in ``build/pages``; run by ``make docs``, before Zensical builds the site from them.

Each page of the repository keeps its path, so relative links hold on the site and on a code host. ``mkdocs.yml`` lists
the pages; ``reference/MODULE.md`` there is the reference of a module, written from its docstrings.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from griffe import Extension, Object

ROOT = Path(__file__).parents[1]
FOLDERS = ("", "docs/", "demo/", "anomalib_defect_plugins/models/*/", "experiments/*/")
LINK = re.compile(r"\]\(([^)\s#]+)")
ROLE = re.compile(r":[a-z]+:`(~?)([^`]+)`")
SESSION = re.compile(r"^>>> .*(?:\n(?!$).*)*", re.MULTILINE)


def main() -> None:
    """Write the pages.

    Raises:
        SystemExit: If ``mkdocs.yml`` lists other pages than there are.
    """
    listed = set(_paths(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    reference = {name for name in listed if name.startswith("reference/")}
    pages = {page.relative_to(ROOT).as_posix() for folder in FOLDERS for page in ROOT.glob(f"{folder}*.md")}
    if pages != listed - reference:
        sys.exit(f"the navigation of mkdocs.yml and the pages differ: {sorted(pages ^ (listed - reference))}")
    folder = ROOT / "build/pages"
    shutil.rmtree(folder, ignore_errors=True)
    for name in pages | set(_linked_files(pages)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in reference:
        module = Path(name).stem
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"# {module}\n\n::: anomalib_defect_plugins.{module}\n", encoding="utf-8")


def _paths(nav: Any) -> Iterator[str]:
    """Yield the paths in a navigation, whose entries are titles with a path or with further entries."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from _paths(entry)


def _linked_files(pages: set[str]) -> Iterator[str]:
    """Yield the other files that pages link to, such as pictures."""
    for page in (ROOT / name for name in pages):
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if (page.parent / link).is_file():
                yield (page.parent / link).resolve().relative_to(ROOT).as_posix()


class Roles(Extension):
    """An extension of mkdocstrings: roles of Sphinx become code, and examples highlighted."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            text = ROLE.sub(lambda role: f"`{role[2].rpartition('.')[2] if role[1] else role[2]}`", obj.docstring.value)
            text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
            obj.docstring.value = SESSION.sub(r"```pycon\n\g<0>\n```", text)


if __name__ == "__main__":
    main()
