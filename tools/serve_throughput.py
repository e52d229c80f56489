"""Compare the throughput of ``anomalib-defects serve`` with that of ``inspect`` on the same images, in turn.

    python tools/serve_throughput.py bundle images

The clients are threads of this process and send files, as they are, on open connections.
"""

import http.client
import itertools
import socket
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from anomalib_defect_plugins.core.image_io import read_size
from anomalib_defect_plugins.inference.inspect_folder import image_paths
from anomalib_defect_plugins.inference.openvino import Inspector

COMMAND = "import sys; from anomalib_defect_plugins.cli import main; sys.exit(main(sys.argv[1:]))"


def inspect(inspector: Inspector, paths: list[str], count: int) -> float:
    """Inspect files as ``inspect`` does; return images per second."""
    start = time.perf_counter()
    images = enumerate(itertools.islice(itertools.cycle(paths), count))
    return sum("score" in row for _, row in inspector.inspect(images)) / (time.perf_counter() - start)


def request(port: int, bodies: list[bytes], count: int, clients: int) -> float:
    """Send images from several clients; return images per second."""

    def send(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for body in itertools.islice(itertools.cycle(bodies), number, number + count // clients):
            connection.request("POST", "/predict", body, {"content-type": "application/octet-stream"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise RuntimeError(answer.status)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count // clients * clients / (time.perf_counter() - start)


@contextmanager
def service(bundle: Path) -> Iterator[int]:
    """Serve a bundle in another process; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", COMMAND, "serve", str(bundle), "--port", str(port)]
    )
    try:
        while process.poll() is None and not _is_ready(port):
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Measure both in turn, and print the rates."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, help="folder or list of images of one size")
    parser.add_argument("--count", type=int, default=300, help="images per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=6)
    options = parser.parse_args()
    paths = list(itertools.islice(image_paths(options.images), options.count))
    bodies = [Path(path).read_bytes() for path in paths]
    inspector = Inspector.load(options.bundle, size=read_size(paths[0])[::-1])
    with service(options.bundle) as port:
        rates = [
            (inspect(inspector, paths, options.count), request(port, bodies, options.count, options.clients))
            for _ in range(options.rounds + 1)
        ]
    print("| inspect, images/s | serve, images/s | ratio |\n|---|---|---|")
    inspected, served = np.median(np.array(rates[1:]), axis=0)  # the first round warms up
    print(f"| {inspected:.1f} | {served:.1f} | {served / inspected:.2f} |")


if __name__ == "__main__":
    main()
