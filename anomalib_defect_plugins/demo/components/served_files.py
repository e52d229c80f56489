"""Files that the server offers to the browser."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

from gradio.utils import get_upload_folder


def download_file(path: str) -> dict[str, str]:
    """Return a value for ``download.js`` that saves a served file.

    Args:
        path: Path of the file, in the folder of served files.
    """
    # The page ignores a value that equals the previous one, so each gets a token.
    uri = f"/gradio_api/file={quote(path)}"
    return {"name": Path(path).name, "uri": uri, "token": secrets.token_hex(8)}


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
