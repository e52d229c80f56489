"""Keeps a process, and those that it starts, from reaching any other machine; each try is a line of what they say.

Python imports this when it starts, if its folder is in ``PYTHONPATH``.
"""

import socket
import sys

OWN = {"127.0.0.1", "::1", "0.0.0.0", "::", "localhost", "", socket.gethostname()}


def _watch(event: str, arguments: tuple) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host is not None and host not in OWN:
        sys.stderr.write(f"reaches for {host}\n")
        msg = f"there is no network, and so no {host}"
        raise OSError(msg)


sys.addaudithook(_watch)
