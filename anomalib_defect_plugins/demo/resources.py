"""Styles, scripts and templates of the page, including those of the report."""

from pathlib import Path
from typing import Any

from anomalib_defect_plugins.report.assets import template_environment

FOLDER = Path(__file__).parent

TEMPLATES = template_environment(FOLDER / "templates")
"""Templates of the demo and of the report. Text from a results folder is escaped."""


def asset(name: str) -> str:
    """Read a style sheet, script or HTML fragment from ``assets/``."""
    return (FOLDER / "assets" / name).read_text(encoding="utf-8")


def render_template(name: str, **values: Any) -> str:
    """Render a template of the demo as HTML."""
    return TEMPLATES.get_template(name).render(**values)
