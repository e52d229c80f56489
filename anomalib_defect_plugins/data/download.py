"""Download of a data set that its authors offer as a zip archive, checked by what is in it."""

import hashlib
import http.client
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

TIMEOUT = 30
"""Seconds without an answer after which a download has failed."""


def download_files(
    url: str, root: Path, names: Sequence[str] | re.Pattern[str], digest: str = "", archive_digest: str = ""
) -> None:
    """Put files of a zip archive under ``root``, which appears when all of them are there and are the right ones.

    Args:
        url: Address of the archive. One top folder that all its members share is left out.
        root: Folder to make; it must not exist or be empty.
        names: The files wanted, relative to ``root``, or a pattern of their whole names. Nothing else is unpacked.
        digest: What :func:`content_digest` must give for them. Archives made by a host on demand differ in their bytes
            from one day to the next, their contents do not.
        archive_digest: SHA-256 of an archive that is a file of its own, instead of ``digest``.

    Raises:
        MissingDataError: The download failed, or it is not what was expected.
        InvalidInputError: ``root`` cannot be written.
    """
    with new_folder(root) as unfinished, tempfile.TemporaryFile(dir=unfinished.parent) as archive:
        try:
            found = _fetch(url, archive)
            if archive_digest:
                _check_digest("is another archive", url, found, archive_digest)
            unpacked = _unpack(archive, unfinished, names)
        except MissingDataError:
            raise
        except (OSError, http.client.HTTPException, zipfile.BadZipFile, KeyError) as error:
            reason = error.args[0] if isinstance(error, KeyError) else error  # a KeyError prints in quotes
            msg = f"cannot download {url} ({reason})"
            raise MissingDataError(msg) from error
        if not archive_digest:
            _check_digest("holds other files", url, content_digest(unfinished, unpacked), digest)


def _check_digest(otherwise: str, url: str, found: str, expected: str) -> None:
    if found != expected:
        msg = f"{url} {otherwise} than expected (SHA-256 {found}, expected {expected})"
        raise MissingDataError(msg)


def content_digest(root: Path, names: Sequence[str]) -> str:
    """SHA-256 over the sorted names and the bytes of files under ``root``, in hexadecimal."""
    total = hashlib.sha256()
    for name in sorted(names):
        content = hashlib.sha256((root / name).read_bytes()).hexdigest()
        total.update(f"{content}  {name}\n".encode())
    return total.hexdigest()


def _fetch(url: str, target: BinaryIO) -> str:
    """Copy what is at ``url`` and give its SHA-256."""
    total = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT) as response,  # noqa: S310  (the address is a constant of ours)
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        # A host that packs on demand cannot say how large the archive will be.
        length = response.headers.get("Content-Length")
        task = progress.add_task(url.rsplit("/", 1)[-1], total=int(length) if length else None)
        while chunk := response.read(1 << 16):
            target.write(chunk)
            total.update(chunk)
            progress.advance(task, len(chunk))
    return total.hexdigest()


def _unpack(source: BinaryIO, folder: Path, names: Sequence[str] | re.Pattern[str]) -> Sequence[str]:
    """Unpack what is wanted and give its names."""
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
