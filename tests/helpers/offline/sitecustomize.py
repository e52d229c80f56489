"""Blocks connections to other machines in a process and its children; each attempt is a line on standard error.

Python imports this file when it starts, if the folder is in ``PYTHONPATH``.
"""

import socket
import sys

LOCAL_HOSTS = {"127.0.0.1", "::1", "0.0.0.0", "::", "localhost", "", socket.gethostname()}


def _block(event: str, arguments: tuple) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host is not None and host not in LOCAL_HOSTS:
        sys.stderr.write(f"network access: {host}\n")
        msg = f"network access is blocked: {host}"
        raise OSError(msg)


sys.addaudithook(_block)
