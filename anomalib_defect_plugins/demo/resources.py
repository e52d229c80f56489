"""Files that the pages are made of: styles, scripts and templates, those of the report among them."""

from pathlib import Path

import jinja2

from anomalib_defect_plugins.report import TEMPLATES as REPORT_TEMPLATES

FOLDER = Path(__file__).parent

REPORT_STYLE = (REPORT_TEMPLATES / "style.css").read_text(encoding="utf-8")
"""Style of the report's tables and plots."""

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([FOLDER / "templates", REPORT_TEMPLATES]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Templates of the demo and of the report. Every text from a results folder is escaped."""


def asset(name: str) -> str:
    """Read a style, script or page fragment of ``assets/``."""
    return (FOLDER / "assets" / name).read_text(encoding="utf-8")
