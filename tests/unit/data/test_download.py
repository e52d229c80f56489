"""Downloads are unpacked whole, checked by their contents, and fail in one line."""

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
# What `sha256sum image/001.jpg truth/001.mat | sha256sum` prints in a folder of these files.
DIGEST = "26031f330c60e6ff01c14133bf1bcc4ac95704c1fed53f1e1ee35d9aba10fe0e"


def archive(path: Path, names: list[str], top: str = "set-master/") -> str:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(top + name, f"content of {name}")
    return path.as_uri()


@pytest.mark.parametrize("top", ["set-master/", ""], ids=["in a top folder", "bare"])
def test_the_wanted_files_and_no_others_are_unpacked(tmp_path, top):
    url = archive(tmp_path / "set.zip", [*NAMES, "README.md"], top)
    download_files(url, tmp_path / "root", NAMES, DIGEST)
    assert sorted(str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*.*")) == NAMES
    assert (tmp_path / "root" / NAMES[1]).read_text() == "content of truth/001.mat"


def test_a_host_that_does_not_say_how_much_it_sends_will_do(tmp_path):
    archive(tmp_path / "set.zip", NAMES)

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write((tmp_path / "set.zip").read_bytes())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        download_files(f"http://127.0.0.1:{server.server_port}/set.zip", tmp_path / "root", NAMES, DIGEST)
    assert (tmp_path / "root" / NAMES[0]).is_file()


def test_other_contents_are_refused_and_nothing_is_left(tmp_path):
    url = archive(tmp_path / "set.zip", NAMES)
    with pytest.raises(MissingDataError, match=r"set\.zip holds other files than expected .*expected 0000"):
        download_files(url, tmp_path / "root", NAMES, "0000")
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.parametrize("top", ["set-master/", ""], ids=["in a top folder", "bare"])
def test_files_can_be_wanted_by_a_pattern_of_their_whole_names(tmp_path, top):
    url = archive(tmp_path / "set.zip", [*NAMES, "README.md", "image/001.jpg.txt", "../image/001.jpg"], top)
    download_files(url, tmp_path / "root", re.compile(r"(image|truth)/\d+\.\w+"), DIGEST)
    assert sorted(str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*.*")) == NAMES


def test_an_archive_with_a_digest_of_its_own_is_checked_by_that(tmp_path):
    url = archive(tmp_path / "set.zip", NAMES)
    digest = hashlib.sha256((tmp_path / "set.zip").read_bytes()).hexdigest()
    download_files(url, tmp_path / "root", NAMES, archive_digest=digest)
    assert (tmp_path / "root" / NAMES[1]).is_file()
    with pytest.raises(MissingDataError, match=rf"set\.zip is another archive than expected .*{digest}, expected 0000"):
        download_files(url, tmp_path / "other", NAMES, archive_digest="0000")
    assert not (tmp_path / "other").exists()


def test_an_archive_without_a_wanted_file_names_that_file(tmp_path):
    url = archive(tmp_path / "set.zip", NAMES[:1])
    with pytest.raises(MissingDataError, match=r"cannot download .*truth/001\.mat.* in the archive"):
        download_files(url, tmp_path / "root", NAMES, "")
    assert not (tmp_path / "root").exists()


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "set.zip").write_text("a page that says sorry")
    with pytest.raises(MissingDataError, match=r"cannot download .*set\.zip \(File is not a zip file\)"):
        download_files((tmp_path / "set.zip").as_uri(), tmp_path / "root", NAMES, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/set.zip", "file:///nowhere/set.zip"])
def test_an_address_that_does_not_answer_is_named_with_the_reason(tmp_path, url):
    with pytest.raises(MissingDataError, match=rf"cannot download {url} \(.+\)"):
        download_files(url, tmp_path / "root", NAMES, "")
    assert not (tmp_path / "root").exists()


def test_a_digest_depends_on_names_and_contents_and_not_on_their_order(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"content of {name}")
    assert content_digest(tmp_path, NAMES) == DIGEST
    assert content_digest(tmp_path, NAMES[::-1]) == DIGEST
    assert content_digest(tmp_path, NAMES[:1]) != DIGEST
    (tmp_path / NAMES[0]).write_text("changed")
    assert content_digest(tmp_path, NAMES) != DIGEST
