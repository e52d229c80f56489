"""Ray, as 'benchmark' and 'inspect' start it: a cluster that does not answer is one line, after seconds."""

import socket
from types import ModuleType
from typing import Any

from anomalib_defect_plugins.core.errors import InvalidInputError

PATIENCE = 10
"""Seconds that a Ray cluster has to answer."""

FINDS_ITSELF = {"auto", "local"}
"""Addresses that Ray looks up itself, on this host."""


def import_ray() -> ModuleType:
    """Import Ray, which is not installed with the rest.

    Raises:
        InvalidInputError: It is not there.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        msg = "--runner ray needs Ray; install it with pip install 'anomalib-defect-plugins[ray]'"
        raise InvalidInputError(msg) from error
    return ray


def start_ray(ray: ModuleType, address: str | None, **options: Any) -> None:
    """Connect to a cluster, or start Ray on this host, quietly.

    Args:
        ray: The module.
        address: Of the cluster, such as ``ray://HOST:10001``, ``HOST:6379`` or ``auto``; by default Ray is started.
        options: Further arguments of ``ray.init``.

    Raises:
        InvalidInputError: There is no cluster at that address, or it does not answer; Ray cannot start.
    """
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    except (OSError, RuntimeError, ValueError) as error:  # a ConnectionError is an OSError
        reason = " ".join(str(error).split())
        msg = f"Ray cannot be started on this host ({reason})"
        if address is not None:
            msg = f"there is no Ray cluster at {address} ({reason}); start one, mend --address, or leave --address out"
        raise InvalidInputError(msg) from error


def _reach(address: str | None) -> None:
    """Connect to host and port, since Ray would try for minutes and print what it tries."""
    if address is None or address in FINDS_ITSELF:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        msg = "not HOST:PORT, ray://HOST:PORT or auto"
        raise ValueError(msg)
    socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
