"""Files that the server offers to the browser."""

import os
import secrets
from pathlib import Path

from gradio.utils import get_upload_folder


def serve_file(name: str, content: bytes) -> str:
    """Write a file to a new folder from which the browser can fetch it; Gradio deletes it later.

    Args:
        name: File name; folders in it are dropped.
        content: Content of the file.

    Returns:
        Path of the file.
    """
    folder = Path(get_upload_folder(), secrets.token_hex(16))
    folder.mkdir(parents=True)
    path = folder / os.path.basename(name)  # noqa: PTH119 - the name comes from a user
    path.write_bytes(content)
    return str(path)
