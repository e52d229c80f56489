"""Download of a data set that its authors publish as a zip archive, verified by its content."""

import hashlib
import http.client
import logging
import re
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.core.files import new_folder

logger = logging.getLogger(__name__)

RESPONSE_TIMEOUT_S = 30
"""Seconds without a response after which a download fails."""


def download_if_missing(
    root: Path,
    url: str,
    names: Sequence[str] | re.Pattern[str],
    layout: str,
    notice: str,
    digest: str = "",
    archive_digest: str = "",
) -> None:
    """Download a data set unless its folder exists and is not empty.

    Args:
        root: Folder of the data set.
        url: As in :func:`download_files`.
        names: Likewise.
        layout: Expected content of ``root``, for the message.
        notice: Terms of use, logged before the download.
        digest: As in :func:`download_files`.
        archive_digest: Likewise.

    Raises:
        MissingDataError: If the download fails; the message says what to put where.
        InvalidInputError: If ``root`` is not writable.
    """
    if root.is_dir() and any(root.iterdir()):
        return
    logger.warning("%s; downloading it from %s", notice, url)
    try:
        download_files(url, root, names, digest, archive_digest)
    except MissingDataError as error:
        msg = f"{error}; download the archive yourself and unpack it so that {root} contains {layout}"
        raise MissingDataError(msg) from error


def download_files(
    url: str, root: Path, names: Sequence[str] | re.Pattern[str], digest: str = "", archive_digest: str = ""
) -> None:
    """Download files of a zip archive into ``root``, which appears once all of them are complete and verified.

    Args:
        url: Address of the archive. A top folder that all its members share is removed from their paths.
        root: Folder to create; it must not exist or be empty.
        names: Files to unpack, relative to ``root``, or a pattern of their whole names. Other files are ignored.
        digest: Expected :func:`content_digest` of these files, for archives that the host builds on demand and whose
            bytes therefore change while their content does not.
        archive_digest: Expected SHA-256 of the archive, instead of ``digest``.

    Raises:
        MissingDataError: If the download fails or has other content than expected.
        InvalidInputError: If ``root`` is not writable.
    """
    with new_folder(root) as unfinished, tempfile.TemporaryFile(dir=unfinished.parent) as archive:
        try:
            actual_digest = _fetch(url, archive)
            if archive_digest:
                _check_digest("is another archive", url, actual_digest, archive_digest)
            unpacked = _unpack(archive, unfinished, names)
        except MissingDataError:
            raise
        except (OSError, http.client.HTTPException, zipfile.BadZipFile, KeyError) as error:
            reason = error.args[0] if isinstance(error, KeyError) else error  # a KeyError prints in quotes
            msg = f"cannot download {url} ({reason})"
            raise MissingDataError(msg) from error
        if not archive_digest:
            _check_digest("has other files", url, content_digest(unfinished, unpacked), digest)


def _check_digest(difference: str, url: str, actual: str, expected: str) -> None:
    if actual != expected:
        msg = f"{url} {difference} than expected (SHA-256 {actual}, expected {expected})"
        raise MissingDataError(msg)


def content_digest(root: Path, names: Sequence[str]) -> str:
    """Compute the SHA-256 over the sorted names and the bytes of files under ``root``, in hexadecimal."""
    total = hashlib.sha256()
    for name in sorted(names):
        content = hashlib.sha256((root / name).read_bytes()).hexdigest()
        total.update(f"{content}  {name}\n".encode())
    return total.hexdigest()


def _fetch(url: str, target: BinaryIO) -> str:
    """Copy the content of ``url`` to ``target`` and return its SHA-256."""
    total = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        urllib.request.urlopen(url, timeout=RESPONSE_TIMEOUT_S) as response,  # noqa: S310 - a constant of a data set
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        # The length is unknown for archives that the host builds on demand.
        length = response.headers.get("Content-Length")
        task = progress.add_task(url.rsplit("/", 1)[-1], total=int(length) if length else None)
        while chunk := response.read(1 << 16):
            target.write(chunk)
            total.update(chunk)
            progress.advance(task, len(chunk))
    return total.hexdigest()


def _unpack(source: BinaryIO, folder: Path, names: Sequence[str] | re.Pattern[str]) -> Sequence[str]:
    """Unpack files and return their names."""
    with zipfile.ZipFile(source) as archive:
        tops = {member.split("/", 1)[0] for member in archive.namelist()}
        prefix = f"{tops.pop()}/" if len(tops) == 1 else ""
        if isinstance(names, re.Pattern):
            members = (member.removeprefix(prefix) for member in archive.namelist())
            names = [name for name in members if names.fullmatch(name)]
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(prefix + name) as member, path.open("wb") as file:
                shutil.copyfileobj(member, file)
    return names
