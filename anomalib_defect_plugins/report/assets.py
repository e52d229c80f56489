"""Templates, style sheet and script of the report's page. The demo uses them too."""

from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent / "templates"

STYLE = (TEMPLATES / "style.css").read_text(encoding="utf-8")
"""Style sheet of tables, plots and examples."""

SORT_SCRIPT = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
"""Script that makes tables sortable; it defines ``makeTablesSortable(root)``."""


def template_environment(*folders: Path) -> jinja2.Environment:
    """Create an environment for the templates of the report and of other folders. Text in them is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
