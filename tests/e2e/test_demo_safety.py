"""What the demo's server gives away, asked for on its HTTP interface itself: nothing outside the results."""

import base64
import http.client
import io
import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_server import offline
from PIL import Image, ImageStat

pytestmark = pytest.mark.slow

DOORS = (
    *("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/", "/gradio_api/proxy=", "/static/", "/assets/"),
    *("/svelte/", "/gradio_api/stream/", "/", "/gradio_api/", "/gradio_api/custom_component/", "//gradio_api//file="),
)
"""Where files come from, or might."""


def ask(url: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Ask the server for a path as it stands, and give the status and the answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def assert_secret(demo: Any, answer: bytes) -> None:
    """Make sure that an answer holds neither the text nor the picture that is outside, however it is written."""
    secret = demo.secret.encode()
    assert secret not in answer
    for start in range(3):  # base64 has three ways to write it, by where it begins
        coded = base64.b64encode(b" " * start + secret)[4 if start else 0 : -4]
        assert coded not in answer
    for coded in re.findall(rb"data:image/(?:png|jpeg|webp);base64,([A-Za-z0-9+/=]+)", answer):
        with Image.open(io.BytesIO(base64.b64decode(coded))) as picture:
            mean = ImageStat.Stat(picture.convert("RGB")).mean
        assert max(abs(it - own) for it, own in zip(mean, demo.colour, strict=True)) > 8


@pytest.mark.parametrize("name", ["secret.txt", "secret.png"])
def test_no_path_leads_to_a_file_outside(demo: Any, name: str) -> None:
    secret = demo.folder / name
    up = "../" * 12
    paths = [str(secret), f"{up}{secret}", f"{demo.results}/../{name}", f"{demo.results}/made/../../{name}"]
    paths += [f"file://{secret}", "/etc/passwd"]
    paths += [path.replace("/", "%2F") for path in paths] + [path.replace("..", "%2e%2e") for path in paths]
    for door in DOORS:
        for path in paths:
            status, answer = ask(demo.url, door + path)
            assert_secret(demo, answer)
            assert b"root:" not in answer
            assert status in {400, 403, 404, 405, 500} or b"<!doctype" in answer.lower(), (door, path)


def test_files_of_the_results_are_not_served_either(demo: Any) -> None:
    run = next((demo.results / "made/runs").iterdir())
    for path in (run / "run.json", run / "maps/00000.png", demo.results / "made/results.csv", demo.results):
        assert ask(demo.url, f"/gradio_api/file={path}")[0] == 403


@pytest.mark.parametrize(
    "path",
    ["file=http://example.org/x.png", "file=HTTPS://example.org/x", "proxy=http://example.org/", "vibe-code",
     "deep_link?session_hash=x", "component_server"],
)  # fmt: skip
def test_what_the_demo_does_not_need_is_refused(demo: Any, path: str) -> None:
    assert ask(demo.url, f"/gradio_api/{path}")[0] == 403


def test_a_request_that_is_too_long_is_refused_before_it_is_sent(demo: Any) -> None:
    for path, most in (("/gradio_api/run/predict", 8), ("/gradio_api/run/upload", 8), ("/gradio_api/upload", 24 * 24)):
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(demo.url).netloc, timeout=120)
        connection.putrequest("POST", path)
        connection.putheader("content-length", str(most * 2**20 + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()


def test_a_file_that_is_too_long_is_refused(demo: Any) -> None:
    try:
        status, _ = upload(demo.url, "x.png", bytes(25 * 2**20))
    except (ConnectionError, urllib.error.URLError):
        status = 413  # it hangs up before all is sent
    assert status == 413


def upload(url: str, name: str, content: bytes) -> tuple[int, bytes]:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = {"content-type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{url}gradio_api/upload", head + content + b"\r\n--x--\r\n", kind)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_uploads_that_claim_to_be_elsewhere_land_in_the_servers_own_folder(demo: Any) -> None:
    path = Path(json.loads(upload(demo.url, "../../../../../../escaped.txt", b"hi")[1])[0])
    assert "anomalib-defects-demo-" in str(path)
    assert ".." not in path.parts
    assert demo.folder not in path.parents


def crafted(demo: Any) -> Iterator[Any]:
    """Give values that lead to a file outside, if someone follows them."""
    secret = str(demo.folder / "secret.png")
    yield from (secret, f"../../{secret}", "made/../..", "..", -1, 10**9, True, None, [secret], {"at": secret})
    yield f"file://{secret}"
    for where in (secret, str(demo.folder / "secret.txt"), f"{demo.results}/../secret.txt", "/etc/passwd"):
        for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
            file = {"path": where, "url": f"file://{where}", **meta}
            yield from (file, [file])


def test_crafted_keys_indices_and_files_read_nothing(demo: Any) -> None:
    listeners = json.loads(ask(demo.url, "/config")[1])["dependencies"]
    # Without inputs there is nothing to craft.
    listeners = [it for it in listeners if it["backend_fn"] and it["inputs"]]
    assert len(listeners) > 20
    for listener in listeners:
        for value in crafted(demo):
            body = {"data": [value] * len(listener["inputs"]), "fn_index": listener["id"], "session_hash": "crafted"}
            body["event_data"] = {"at": value, "path": str(demo.folder / "secret.png")}
            _, answer = ask(demo.url, "/gradio_api/run/predict", body)
            assert_secret(demo, answer)
            assert b"root:" not in answer
            for file in re.findall(rb"/gradio_api/file=[^\"\\\\]+", answer):
                assert_secret(demo, ask(demo.url, file.decode())[1])


def test_crafted_files_on_the_queue_read_nothing(demo: Any) -> None:
    listeners = [it for it in json.loads(ask(demo.url, "/config")[1])["dependencies"] if it["queue"] is not False]
    file = {"path": str(demo.folder / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    asked = 0
    for listener in listeners:
        for value in (file, [file]):
            body = {"data": [value] * len(listener["inputs"]), "fn_index": listener["id"], "session_hash": "queued"}
            asked += ask(demo.url, "/gradio_api/queue/join", body)[0] == 200
    assert asked > 10
    with urllib.request.urlopen(f"{demo.url}gradio_api/queue/data?session_hash=queued", timeout=120) as stream:
        for line in stream:
            assert_secret(demo, line)
            if b"close_stream" in line:
                break


def test_crafted_places_are_one_line_on_the_page(demo: Any) -> None:
    config = json.loads(ask(demo.url, "/config")[1])
    walk = next(it["id"] for it in config["components"] if it["props"].get("elem_id") == "walk")
    step = next(it for it in config["dependencies"] if [walk, "walk"] in it["targets"])
    for data, place, said in (
        (["../../x", "../../y", "all", "either"], 0, "is not in the list of choices|there is no run"),
        ([None, None, "../x", "either"], 0, "choices|must be one of"),
    ):
        body = {"data": data, "fn_index": step["id"], "session_hash": "s", "event_data": {"at": place}}
        assert re.search(said, ask(demo.url, "/gradio_api/run/predict", body)[1].decode())


def test_the_servers_of_these_tests_reach_no_other_machine() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80))"
    tried = subprocess.run([sys.executable, "-c", code], env=offline(), capture_output=True, text=True, check=False)
    assert tried.stderr.startswith("reaches for 192.0.2.1\n")
    assert tried.stderr.endswith("OSError: there is no network, and so no 192.0.2.1\n")
