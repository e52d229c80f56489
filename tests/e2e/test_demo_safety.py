"""Requests to the demo's HTTP interface: nothing outside the results can be read."""

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
from demo_server import offline_environment
from PIL import Image, ImageStat

pytestmark = pytest.mark.slow

FILE_ENDPOINTS = (
    *("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/", "/gradio_api/proxy=", "/static/", "/assets/"),
    *("/svelte/", "/gradio_api/stream/", "/", "/gradio_api/", "/gradio_api/custom_component/", "//gradio_api//file="),
)
"""Endpoints that serve files, or might do so."""


def request(url: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Request a path without normalising it; return status and content of the response."""
    data = None if body is None else json.dumps(body).encode()
    return send(urllib.request.Request(url.rstrip("/") + path, data, {"content-type": "application/json"}))


def send(message: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(message, timeout=120) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def assert_no_secret(demo: Any, content: bytes) -> None:
    """Assert that a response contains neither the secret text nor the secret image, in plain form or as base64."""
    secret = demo.secret.encode()
    assert secret not in content
    for offset in range(3):  # base64 encodes the text differently at each offset modulo 3
        encoded = base64.b64encode(b" " * offset + secret)[4 if offset else 0 : -4]
        assert encoded not in content
    for encoded in re.findall(rb"data:image/(?:png|jpeg|webp);base64,([A-Za-z0-9+/=]+)", content):
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            mean = ImageStat.Stat(image.convert("RGB")).mean
        assert max(abs(value - secret) for value, secret in zip(mean, demo.colour, strict=True)) > 8


@pytest.mark.parametrize("name", ["secret.txt", "secret.png"])
def test_no_path_leads_outside_the_results(demo: Any, name: str) -> None:
    secret = demo.folder / name
    up = "../" * 12
    paths = [str(secret), f"{up}{secret}", f"{demo.results}/../{name}", f"{demo.results}/made/../../{name}"]
    paths += [f"file://{secret}", "/etc/passwd"]
    paths += [path.replace("/", "%2F") for path in paths] + [path.replace("..", "%2e%2e") for path in paths]
    for endpoint in FILE_ENDPOINTS:
        for path in paths:
            status, content = request(demo.url, endpoint + path)
            assert_no_secret(demo, content)
            assert b"root:" not in content
            assert status in {400, 403, 404, 405, 500} or b"<!doctype" in content.lower(), (endpoint, path)


def test_files_of_the_results_are_not_served(demo: Any) -> None:
    run = next((demo.results / "made/runs").iterdir())
    for path in (run / "run.json", run / "maps/00000.png", demo.results / "made/results.csv", demo.results):
        assert request(demo.url, f"/gradio_api/file={path}")[0] == 403


@pytest.mark.parametrize(
    "path",
    ["file=http://example.org/x.png", "file=HTTPS://example.org/x", "proxy=http://example.org/", "vibe-code",
     "deep_link?session_hash=x", "component_server"],
)  # fmt: skip
def test_unused_endpoints_are_refused(demo: Any, path: str) -> None:
    assert request(demo.url, f"/gradio_api/{path}")[0] == 403


def test_overlong_request_is_refused_before_it_is_sent(demo: Any) -> None:
    for path, limit_mib in (
        ("/gradio_api/run/predict", 8),
        ("/gradio_api/run/upload", 8),
        ("/gradio_api/upload", 24 * 24),
    ):
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(demo.url).netloc, timeout=120)
        connection.putrequest("POST", path)
        connection.putheader("content-length", str(limit_mib * 2**20 + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()


def test_overlong_file_is_refused(demo: Any) -> None:
    try:
        status, _ = upload(demo.url, "x.png", bytes(25 * 2**20))
    except (ConnectionError, urllib.error.URLError):
        status = 413  # the server closes the connection early
    assert status == 413


def upload(url: str, name: str, content: bytes) -> tuple[int, bytes]:
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = {"content-type": "multipart/form-data; boundary=x"}
    return send(urllib.request.Request(f"{url}gradio_api/upload", head + content + b"\r\n--x--\r\n", kind))


def test_uploads_with_crafted_names_stay_in_the_servers_folder(demo: Any) -> None:
    path = Path(json.loads(upload(demo.url, "../../../../../../escaped.txt", b"hi")[1])[0])
    assert "anomalib-defects-demo-" in str(path)
    assert ".." not in path.parts
    assert demo.folder not in path.parents


def crafted(demo: Any) -> Iterator[Any]:
    """Yield values that would lead to a file outside the results if they were used as paths."""
    secret = str(demo.folder / "secret.png")
    yield from (secret, f"../../{secret}", "made/../..", "..", -1, 10**9, True, None, [secret], {"position": secret})
    yield f"file://{secret}"
    for where in (secret, str(demo.folder / "secret.txt"), f"{demo.results}/../secret.txt", "/etc/passwd"):
        for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
            file = {"path": where, "url": f"file://{where}", **meta}
            yield from (file, [file])


def test_crafted_keys_indices_and_files_read_nothing(demo: Any) -> None:
    listeners = json.loads(request(demo.url, "/config")[1])["dependencies"]
    listeners = [listener for listener in listeners if listener["backend_fn"] and listener["inputs"]]
    assert len(listeners) > 20
    for listener in listeners:
        for value in crafted(demo):
            body = {"data": [value] * len(listener["inputs"]), "fn_index": listener["id"], "session_hash": "crafted"}
            body["event_data"] = {"position": value, "path": str(demo.folder / "secret.png")}
            _, content = request(demo.url, "/gradio_api/run/predict", body)
            assert_no_secret(demo, content)
            assert b"root:" not in content
            for file in re.findall(rb"/gradio_api/file=[^\"\\\\]+", content):
                assert_no_secret(demo, request(demo.url, file.decode())[1])


def test_crafted_files_on_the_queue_read_nothing(demo: Any) -> None:
    listeners = json.loads(request(demo.url, "/config")[1])["dependencies"]
    listeners = [listener for listener in listeners if listener["queue"] is not False]
    file = {"path": str(demo.folder / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    accepted = 0
    for listener in listeners:
        for value in (file, [file]):
            body = {"data": [value] * len(listener["inputs"]), "fn_index": listener["id"], "session_hash": "queued"}
            accepted += request(demo.url, "/gradio_api/queue/join", body)[0] == 200
    assert accepted > 10
    with urllib.request.urlopen(f"{demo.url}gradio_api/queue/data?session_hash=queued", timeout=120) as stream:
        for line in stream:
            assert_no_secret(demo, line)
            if b"close_stream" in line:
                break


def test_crafted_positions_are_reported_on_the_page(demo: Any) -> None:
    config = json.loads(request(demo.url, "/config")[1])
    components, listeners = config["components"], config["dependencies"]
    image = next(block["id"] for block in components if block["props"].get("elem_id") == "run-comparison")
    navigate = next(listener for listener in listeners if [image, "navigate"] in listener["targets"])
    for data, position, message in (
        (["../../x", "../../y", "all", "either"], 0, "is not in the list of choices|there is no run"),
        ([None, None, "../x", "either"], 0, "choices|must be one of"),
    ):
        body = {"data": data, "fn_index": navigate["id"], "session_hash": "s", "event_data": {"position": position}}
        assert re.search(message, request(demo.url, "/gradio_api/run/predict", body)[1].decode())


def test_servers_of_these_tests_have_no_network_access() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80))"
    result = subprocess.run(
        [sys.executable, "-c", code], env=offline_environment(), capture_output=True, text=True, check=False
    )
    assert result.stderr.startswith("network access: 192.0.2.1\n")
    assert result.stderr.endswith("OSError: network access is blocked: 192.0.2.1\n")
