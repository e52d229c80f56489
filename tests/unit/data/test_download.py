"""Downloads are unpacked completely, verified by their content, and fail with one line."""

import hashlib
import http.server
import re
import threading
import zipfile
from pathlib import Path

import pytest

from anomalib_defect_plugins.core.errors import MissingDataError
from anomalib_defect_plugins.data.download import content_digest, download_files

NAMES = ["image/001.jpg", "truth/001.mat"]
# Output of `sha256sum image/001.jpg truth/001.mat | sha256sum` in a folder of these files.
DIGEST = "26031f330c60e6ff01c14133bf1bcc4ac95704c1fed53f1e1ee35d9aba10fe0e"


def archive(path: Path, names: list[str], top: str = "set-master/") -> str:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(top + name, f"content of {name}")
    return path.as_uri()


@pytest.mark.parametrize("top", ["set-master/", ""], ids=["in a top folder", "bare"])
def test_only_the_named_files_are_unpacked(tmp_path: Path, top: str) -> None:
    url = archive(tmp_path / "set.zip", [*NAMES, "README.md"], top)
    download_files(url, tmp_path / "root", NAMES, DIGEST)
    assert sorted(str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*.*")) == NAMES
    assert (tmp_path / "root" / NAMES[1]).read_text() == "content of truth/001.mat"


def test_a_response_without_a_length_is_accepted(tmp_path: Path) -> None:
    archive(tmp_path / "set.zip", NAMES)

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write((tmp_path / "set.zip").read_bytes())

        def log_message(self, *_: object) -> None:
            """Keep the output of the tests clean."""

    with http.server.HTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        download_files(f"http://127.0.0.1:{server.server_port}/set.zip", tmp_path / "root", NAMES, DIGEST)
    assert (tmp_path / "root" / NAMES[0]).is_file()


def test_other_content_is_an_error_and_leaves_no_files(tmp_path: Path) -> None:
    url = archive(tmp_path / "set.zip", NAMES)
    with pytest.raises(MissingDataError, match=r"set\.zip has other files than expected .*expected 0000"):
        download_files(url, tmp_path / "root", NAMES, "0000")
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.parametrize("top", ["set-master/", ""], ids=["in a top folder", "bare"])
def test_files_can_be_selected_by_a_pattern_of_their_whole_names(tmp_path: Path, top: str) -> None:
    url = archive(tmp_path / "set.zip", [*NAMES, "README.md", "image/001.jpg.txt", "../image/001.jpg"], top)
    download_files(url, tmp_path / "root", re.compile(r"(image|truth)/\d+\.\w+"), DIGEST)
    assert sorted(str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*.*")) == NAMES


def test_an_archive_can_be_verified_by_its_digest(tmp_path: Path) -> None:
    url = archive(tmp_path / "set.zip", NAMES)
    digest = hashlib.sha256((tmp_path / "set.zip").read_bytes()).hexdigest()
    download_files(url, tmp_path / "root", NAMES, archive_digest=digest)
    assert (tmp_path / "root" / NAMES[1]).is_file()
    with pytest.raises(MissingDataError, match=rf"set\.zip is another archive than expected .*{digest}, expected 0000"):
        download_files(url, tmp_path / "other", NAMES, archive_digest="0000")
    assert not (tmp_path / "other").exists()


def test_a_file_that_the_archive_lacks_is_named(tmp_path: Path) -> None:
    url = archive(tmp_path / "set.zip", NAMES[:1])
    with pytest.raises(MissingDataError, match=r"cannot download .*truth/001\.mat.* in the archive"):
        download_files(url, tmp_path / "root", NAMES, "")
    assert not (tmp_path / "root").exists()


def test_a_response_that_is_not_an_archive_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_text("an error page")
    with pytest.raises(MissingDataError, match=r"cannot download .*set\.zip \(File is not a zip file\)"):
        download_files((tmp_path / "set.zip").as_uri(), tmp_path / "root", NAMES, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/set.zip", "file:///nowhere/set.zip"])
def test_an_address_that_does_not_respond_is_named_with_the_reason(tmp_path: Path, url: str) -> None:
    with pytest.raises(MissingDataError, match=rf"cannot download {url} \(.+\)"):
        download_files(url, tmp_path / "root", NAMES, "")
    assert not (tmp_path / "root").exists()


def test_a_digest_depends_on_names_and_contents_and_not_on_their_order(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"content of {name}")
    assert content_digest(tmp_path, NAMES) == DIGEST
    assert content_digest(tmp_path, NAMES[::-1]) == DIGEST
    assert content_digest(tmp_path, NAMES[:1]) != DIGEST
    (tmp_path / NAMES[0]).write_text("changed")
    assert content_digest(tmp_path, NAMES) != DIGEST
