"""Text of messages."""


def counted(number: int, noun: str) -> str:
    """Format a number of things: ``1 image``, ``2 images``.

    Args:
        number: The number.
        noun: Name of one of them; its plural ends in s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
