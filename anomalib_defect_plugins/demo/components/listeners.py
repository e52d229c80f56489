"""Options of Gradio listeners and states."""

from typing import Any

Updates = dict[Any, Any]
"""New values by component."""

QUEUED: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Options of listeners that may show an error."""

UNQUEUED: dict[str, Any] = {**QUEUED, "queue": False}
"""Options of listeners that answer at once. The browser logs a failed request, so they should not raise."""

STATE_TTL_S = 2 * 3600
"""Seconds that the state of an inactive user is kept."""
