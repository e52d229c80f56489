"""Durations in words."""


def minutes(seconds: float) -> str:
    """Format a duration: ``2:05 min``."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole}:{rest:02} min"
