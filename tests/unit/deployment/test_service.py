"""The web service: right answers to good requests, and short ones to bad ones."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from bright_graph import byte_graph
from PIL import Image

from anomalib_defect_plugins.inference.openvino import Inspector
from anomalib_defect_plugins.inference.predictor import InspectSettings

fastapi = pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
testclient = pytest.importorskip("fastapi.testclient")

from anomalib_defect_plugins.deployment import service  # noqa: E402 - needs the packages above


def png(value: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module", params=[1, 4], ids=["single", "batches"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    inspector = Inspector(byte_graph(min_side=2), InspectSettings(batch=request.param), threads=1)
    with testclient.TestClient(service.create_app(inspector, {"hash": "abc"}), raise_server_exceptions=True) as client:
        yield client


def post(client: Any, content: bytes, kind: str = "image/png", **options: Any) -> Any:
    return client.post("/predict", content=content, headers={"content-type": kind}, **options)


def test_an_image_as_the_body_is_inspected(client: Any) -> None:
    answer = post(client, png(204))
    assert answer.status_code == 200
    assert answer.json()["model"] == "abc"
    (result,) = answer.json()["results"]
    assert result["score"] == pytest.approx(0.8)
    assert result["is_defective"] is True
    assert result["regions"] == [
        {"area": 64, "x": 0, "y": 0, "width": 8, "height": 8, "mean_score": pytest.approx(0.8)}
    ]


def test_the_map_keeps_all_its_values(client: Any) -> None:
    (result,) = post(client, png(51), params={"map": 1}).json()["results"]
    with Image.open(io.BytesIO(base64.b64decode(result["map"]))) as image:
        np.testing.assert_allclose(np.asarray(image), np.full((8, 8), 0.2), rtol=1e-6)


def test_images_in_a_form_are_answered_in_order(client: Any) -> None:
    values = (51, 204, 102, 230, 0)
    answer = client.post(
        "/predict", files=[("images", (f"{value}.png", png(value, 4 + value % 3))) for value in values]
    )
    results = answer.json()["results"]
    assert [result["name"] for result in results] == [f"{value}.png" for value in values]
    assert [result["score"] for result in results] == pytest.approx([value / 255 for value in values], abs=1e-6)


def test_concurrent_requests_get_their_own_answers(client: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda value: post(client, png(value)), range(60)))
    scores = [answer.json()["results"][0]["score"] for answer in answers]
    assert scores == pytest.approx([value / 255 for value in range(60)], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        ({"content": b"", "headers": {"content-type": "image/png"}}, 400, "image is empty"),
        ({"content": b"hello", "headers": {"content-type": "image/png"}}, 422, "the data is not an image"),
        (
            {"content": png(9, 64)[:48], "headers": {"content-type": "image/png"}},
            422,
            "image: the image cannot be read",
        ),
        ({"content": png(9, 1), "headers": {"content-type": "image/png"}}, 422, "image: the model fails"),
        ({"content": b"{}", "headers": {"content-type": "application/json"}}, 415, "send an image as the body"),
        ({"content": b"{}"}, 415, "send an image as the body"),
        ({"data": {"a": "b"}, "files": {"f": b""}}, 400, "is empty"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400, ""),
        ({"files": [("f", b"x")] * 25}, 400, "Too many files"),
        ({"content": iter([b"x"]), "headers": {"content-type": "image/png"}}, 411, "content-length is missing"),
        ({"content": b"x", "headers": {"content-length": str(10**12)}}, 413, "longer than"),
    ],
)
def test_bad_requests_get_a_status_and_one_line(client: Any, options: Any, status: int, line: str) -> None:
    answer = client.post("/predict", **options)
    assert answer.status_code == status
    assert line in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert post(client, png(51)).status_code == 200


def test_decompression_bombs_are_refused(client: Any) -> None:
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + b"\x08\0\0\0\0"
    answer = post(client, png(9)[:12] + header + struct.pack(">I", zlib.crc32(header)) + png(9)[33:])
    assert answer.status_code == 422
    assert "400000000 pixels, more than the limit" in answer.json()["error"]


def test_requests_beyond_the_capacity_are_told_to_come_later(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_WAITING", 0)
    answer = post(client, png(51))
    assert answer.status_code == 503
    assert "send the request again later" in answer.json()["error"]


def test_health_names_the_model_and_metrics_count_verdicts() -> None:
    inspector = Inspector(byte_graph(), threads=1)
    with testclient.TestClient(service.create_app(inspector, {"hash": "abc", "model": {"name": "Bright"}})) as client:
        assert client.get("/health").json() == {"status": "ready", "model": "abc", "name": "Bright"}
        for value in (51, 204, 205):
            post(client, png(value))
        post(client, b"hello")
        text = client.get("/metrics").text
    assert 'anomalib_defects_images_total{verdict="defective"} 2.0' in text
    assert 'anomalib_defects_images_total{verdict="normal"} 1.0' in text
    assert 'anomalib_defects_requests_total{status="422"} 1.0' in text
    assert "anomalib_defects_request_seconds_count 4.0" in text
    assert 'anomalib_defects_model_info{hash="abc"} 1.0' in text


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/", "/predict/x"])
def test_there_are_no_other_pages(path: str) -> None:
    app = service.create_app(Inspector(byte_graph(), threads=1), {"hash": "abc"})
    with testclient.TestClient(app) as client:
        assert client.get(path).status_code == 404
