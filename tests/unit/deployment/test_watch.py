"""A watched folder: each image is inspected exactly once, whatever happens between two steps."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bright_graph import byte_graph
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.deployment import watch as module
from anomalib_defect_plugins.deployment.journal import Journal
from anomalib_defect_plugins.deployment.notify import mqtt, webhook
from anomalib_defect_plugins.deployment.watch import Watcher, WatchSettings
from anomalib_defect_plugins.inference.openvino import Inspector

INSPECTOR = Inspector(byte_graph(), size=(6, 8), threads=1)


def save(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with two normal images, two defective ones and a broken one."""
    for name, value in (("a.png", 51), ("b.png", 204), ("sub/a.png", 52), ("sub/b.png", 205)):
        save(tmp_path / "in" / name, value)
    (tmp_path / "in/broken.png").write_bytes(b"nothing")
    return tmp_path / "in"


def watch(folder: Path, action: str = "move", notify: Any = None, **options: Any) -> None:
    settings = WatchSettings(action, interval=0.01, settle=options.pop("settle", 0.0), once=True)
    Watcher(INSPECTOR, "hash", folder, options.pop("out", folder.parent / "out"), settings, notify).run()


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def rows(out: Path) -> list[Any]:
    journal = Journal(out)
    try:
        return journal._database.execute("SELECT path, verdict, score, delivered FROM images ORDER BY path").fetchall()
    finally:
        journal.close()


MOVED = {"normal/a.png", "normal/sub/a.png", "defective/b.png", "defective/sub/b.png", "error/broken.png"}


def test_images_are_moved_by_verdict_and_recorded(folder: Path) -> None:
    watch(folder)
    assert files(folder) == set()
    assert files(folder.parent / "out") == MOVED
    found = [(Path(path).relative_to(folder).as_posix(), *rest) for path, *rest in rows(folder.parent / "out")]
    assert [(path, verdict, done) for path, verdict, _, done in found] == [
        ("a.png", "normal", 1),
        ("b.png", "defective", 1),
        ("broken.png", "error", 1),
        ("sub/a.png", "normal", 1),
        ("sub/b.png", "defective", 1),
    ]
    assert [score for _, _, score, _ in found if score] == pytest.approx([51 / 255, 204 / 255, 52 / 255, 205 / 255])


@pytest.mark.parametrize("action", ["link", "none"])
def test_images_that_stay_are_inspected_once(folder: Path, action: str) -> None:
    for _ in range(2):
        watch(folder, action)
    assert len(files(folder)) == len(rows(folder.parent / "out")) == 5
    linked = files(folder.parent / "out")
    assert linked == (MOVED if action == "link" else set())
    for path in linked:
        assert (folder.parent / "out" / path).samefile(folder / path.partition("/")[2])


def test_a_file_that_is_written_again_is_a_new_image(folder: Path) -> None:
    watch(folder, "none")
    save(folder / "a.png", 250)
    os.utime(folder / "a.png", (1, 1))
    watch(folder, "none")
    found = [row for row in rows(folder.parent / "out") if row[0] == str(folder / "a.png")]
    assert sorted(verdict for _, verdict, _, _ in found) == ["defective", "normal"]


def test_an_image_of_the_name_of_a_moved_one_gets_another_name(folder: Path) -> None:
    for value in (51, 52, 53):
        save(folder / "a.png", value)
        watch(folder)
    assert {"normal/a.png", "normal/a-2.png", "normal/a-3.png"} <= files(folder.parent / "out")


@pytest.mark.parametrize("step", ["add", "_move", "mark"])
def test_a_kill_at_any_step_loses_and_repeats_nothing(folder: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner: Any = module if step == "_move" else Journal
    own = getattr(owner, step)
    calls = []

    def kill_after(*arguments: Any) -> None:
        own(*arguments)
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "CHUNK", 1)
    monkeypatch.setattr(owner, step, kill_after)
    with pytest.raises(KeyboardInterrupt):
        watch(folder)
    monkeypatch.setattr(owner, step, own)
    watch(folder)
    assert files(folder.parent / "out") == MOVED
    assert len(rows(folder.parent / "out")) == 5
    assert all(delivered for *_, delivered in rows(folder.parent / "out"))


def test_a_move_to_another_file_system_that_was_killed_is_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(self: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", rename)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            watch(folder)
    assert len(files(folder)) == 5
    watch(folder)
    assert files(folder) == set()
    assert files(folder.parent / "out") == MOVED
    assert len(rows(folder.parent / "out")) == 5


def test_a_file_that_is_still_written_is_left_until_it_settles(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", 204).read_bytes()
    slow = tmp_path / "in/slow.png"
    slow.parent.mkdir()

    def write() -> None:
        with slow.open("wb") as file:
            for index in range(0, len(whole), 8):
                file.write(whole[index : index + 8])
                file.flush()
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    while not slow.exists():
        time.sleep(0.001)
    watch(slow.parent, settle=0.4)
    writer.join()
    assert [verdict for _, verdict, _, _ in rows(tmp_path / "out")] == ["defective"]


def test_the_output_folder_may_be_inside_the_watched_one(folder: Path) -> None:
    for _ in range(2):
        watch(folder, out=folder / "out")
    assert files(folder) == {f"out/{name}" for name in MOVED}
    assert len(rows(folder / "out")) == 5


def test_two_processes_do_not_share_a_record(folder: Path) -> None:
    first = Watcher(INSPECTOR, "hash", folder, folder.parent / "out", WatchSettings())
    with pytest.raises(InvalidInputError, match="out is in use by another process; stop it, or choose another folder"):
        watch(folder)
    first.lock.release()


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="nothing is not a folder"):
        watch(tmp_path / "nothing")


def test_messages_that_cannot_be_sent_wait_and_are_sent_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def fail(content: Any) -> None:
        if len(sent) == 2:
            raise OSError(5, "no network")
        sent.append(content)

    watch(folder, notify=fail)
    assert len(sent) == 2
    watch(folder, notify=sent.append)
    assert sorted(content["id"] for content in sent) == [1, 2, 3, 4, 5]
    defective = next(content for content in sent if content["path"].endswith("in/b.png"))
    assert defective["verdict"] == "defective"
    assert defective["regions"][0]["area"] == 48
    assert defective["target"] == str(folder.parent / "out/defective/b.png")


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(json.loads(body))
            self.send_response(200 if len(received) < 3 else 500)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    received: list[Any] = []
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.received = received  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_json_and_an_error_status_is_a_failure(server: HTTPServer) -> None:
    notify = webhook(f"http://127.0.0.1:{server.server_port}/line")
    for number in range(2):
        notify({"id": number})
    assert server.received == [{"id": 0}, {"id": 1}]  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="500"):
        notify({"id": 2})


@pytest.mark.parametrize("url", ["file:///etc/passwd", "host/path", "http://", ""])
def test_a_webhook_has_to_be_a_web_address(url: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a web address"):
        webhook(url)


@pytest.mark.parametrize("address", ["", "broker", "broker:1883", "broker:port/topic", "broker/line/#", "/topic"])
def test_mqtt_needs_a_broker_and_a_topic(address: str) -> None:
    pytest.importorskip("paho")
    with pytest.raises(InvalidInputError, match="is not a broker with a topic; use one such as"):
        mqtt(address)


def test_a_broker_that_does_not_answer_is_a_failure_to_be_repeated() -> None:
    pytest.importorskip("paho")
    with pytest.raises(OSError, match="refused"):
        mqtt("127.0.0.1:1/topic")({"id": 1})


def test_a_full_disk_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_move", fail)
    with pytest.raises(InvalidInputError, match=r"cannot write to .* \(No space left on device\); free space"):
        watch(folder)
    monkeypatch.undo()
    watch(folder)
    assert files(folder.parent / "out") == MOVED
    shutil.rmtree(folder)
