"""The commands ``watch`` and ``serve``, killed at random under load. ``KILLS`` sets how often; 20 for a campaign."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from bright_graph import byte_graph
from PIL import Image

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "2"))

COMMAND = "import sys; from anomalib_defect_plugins.cli import main; sys.exit(main(sys.argv[1:]))"


def start(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "ignore", "-c", COMMAND, *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    openvino.save_model(byte_graph(), tmp_path / "model/model.xml", compress_to_fp16=False)
    return tmp_path / "model"


def test_a_watched_folder_survives_kills_without_losses_and_repetitions(model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    values, stop = {}, threading.Event()

    def produce() -> None:
        while not stop.is_set():
            name, value = f"{len(values):06}.bmp", random.randrange(256)
            Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / name)
            (tmp_path / name).rename(source / name)
            values[name] = value
            time.sleep(0.005)

    producer = threading.Thread(target=produce)
    producer.start()
    words = ("watch", str(source), "--model", str(model), "--out", str(out), "--move", "--settle", "0")
    recorded = 0
    for _ in range(KILLS):
        process = start(*words)
        until = time.monotonic() + 120
        while time.monotonic() < until and count(out) <= recorded:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        process.communicate()
        recorded = count(out)
    stop.set()
    producer.join()
    final = start(*words, "--once")
    assert "Traceback" not in final.communicate(timeout=300)[1]
    assert final.returncode == 0
    with sqlite3.connect(out / "inspected.sqlite") as database:
        rows = database.execute("SELECT path, score, target, delivered FROM images").fetchall()
    assert sorted(Path(path).name for path, *_ in rows) == sorted(values)
    for path, score, target, delivered in rows:
        value = values[Path(path).name]
        assert score == pytest.approx(value / 255, abs=1e-6)
        assert delivered
        assert Path(target).parent.name == ("defective" if value / 255 > 0.5 else "normal")
    found = [path.name for path in out.rglob("*.bmp")]
    assert sorted(found) == sorted(values)
    assert not list(source.iterdir())


def count(out: Path) -> int:
    try:
        with sqlite3.connect(f"file:{out}/inspected.sqlite?mode=ro", uri=True) as database:
            return int(database.execute("SELECT COUNT(*) FROM images").fetchone()[0])
    except sqlite3.Error:
        return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_ends_on_a_signal_without_a_traceback(model: Path, tmp_path: Path, number: int) -> None:
    process = start("watch", str(tmp_path), "--model", str(model), "--out", str(tmp_path / "out"))
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    process.send_signal(number)
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == (0 if number == signal.SIGINT else 143)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(process: "subprocess.Popen[str]", port: int) -> None:
    while not is_ready(port):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def ask(port: int, value: int) -> Any:
    """Return the score of a grey image; ``None`` if the service is away."""
    side = 4 + value % 5
    body = b"P6 %d %d 255\n" % (side, side) + bytes([value]) * (3 * side * side)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/predict", body, {"content-type": "image/x-portable-pixmap"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return content["results"][0]["score"] if answer.status == 200 else float("inf")


def test_a_service_that_is_killed_answers_no_request_wrongly(model: Path, port: int) -> None:
    stop, answers = threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            value = random.randrange(256)
            score = ask(port, value)
            if score is None:
                time.sleep(0.02)
            else:
                answers.append(abs(score - value / 255))

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    for _ in range(KILLS):
        process = start("serve", str(model), "--port", str(port), "--batch", "4")
        before = len(answers)
        while len(answers) < before + 10:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
        process.kill()
        assert "Traceback" not in process.communicate()[1]
    stop.set()
    for client in clients:
        client.join()
    assert len(answers) > KILLS
    assert max(answers) < 1e-6


def test_a_thousand_bad_requests_leave_no_traceback(model: Path, port: int) -> None:
    process = start("serve", str(model), "--port", str(port))
    try:
        wait_for(process, port)
        rng = random.Random(0)
        for _ in range(1000 if KILLS >= 20 else 150):
            send_garbage(port, rng)
        assert ask(port, 51) == pytest.approx(0.2)
    finally:
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert "Traceback" not in error
    assert process.returncode == 0


PIECES = (
    b"POST /predict HTTP/1.1\r\n",
    b"GET /predict HTTP/1.1\r\n",
    b"PUT /predict?map=1 HTTP/1.1\r\n",
    b"POST /predict/../x HTTP/1.1\r\n",
    b"host: a\r\n",
    b"content-type: image/png\r\n",
    b"content-type: multipart/form-data; boundary=b\r\n",
    b"content-type: multipart/form-data\r\n",
    b"transfer-encoding: chunked\r\n",
    b"content-length: 20\r\n",
    b"content-length: -1\r\n",
    b"content-length: 99999999999999\r\n",
    b"\r\n",
    b"\x89PNG\r\n\x1a\n" + bytes(40),
    b"II*\0" + bytes(20),
    b"P6 9999 9999 255\n",
    b'--b\r\ncontent-disposition: form-data; name="f"; filename="../../x"\r\n\r\nabc\r\n--b--\r\n',
    bytes(range(256)),
)


def send_garbage(port: int, rng: random.Random) -> None:
    pieces = rng.sample(PIECES, rng.randint(1, 7))
    if rng.random() < 0.8:  # a request line first
        pieces = [PIECES[rng.randrange(4)], *pieces, b"\r\n"]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"".join(pieces))
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):  # the service may close it before it has read everything
            while connection.recv(4096):
                pass


def test_a_port_in_use_is_one_line(model: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        process = start("serve", str(model), "--port", str(port))
        error = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert (
        error == f"error: cannot listen on 127.0.0.1:{port} (Address already in use); choose another --host or --port\n"
    )
