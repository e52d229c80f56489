"""The environment variables that this package reads."""

import os

DISABLE_VARIABLE = "ANOMALIB_DEFECT_PLUGINS_DISABLE"
"""Comma-separated names of plugins to skip; ``all`` switches the whole package off."""

STRICT_VARIABLE = "ANOMALIB_DEFECT_PLUGINS_STRICT"
"""``1`` turns a plugin that fails to load into an error."""

TRACEBACK_VARIABLE = "ANOMALIB_DEFECT_PLUGINS_TRACEBACK"
"""``1`` shows the full traceback of every error."""


def disabled_names() -> set[str]:
    """Names in :data:`DISABLE_VARIABLE`, lower case."""
    return {name.strip().lower() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()}


def strict() -> bool:
    """Whether :data:`STRICT_VARIABLE` is set."""
    return _is_set(STRICT_VARIABLE)


def show_traceback() -> bool:
    """Whether :data:`TRACEBACK_VARIABLE` is set."""
    return _is_set(TRACEBACK_VARIABLE)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "") not in {"", "0"}
