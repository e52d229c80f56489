"""Start of Ray for ``benchmark`` and ``inspect``, with a one-line error within seconds if a cluster does not answer."""

import socket
from types import ModuleType
from typing import Any

from anomalib_defect_plugins.core.errors import InvalidInputError

CONNECT_TIMEOUT_S = 10
"""Time for a Ray cluster to answer."""

LOCAL_ADDRESSES = {"auto", "local"}
"""Addresses that Ray resolves itself, on this host."""


def import_ray() -> ModuleType:
    """Import Ray, an optional dependency.

    Raises:
        InvalidInputError: If Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        msg = "--runner ray needs Ray; install it with pip install 'anomalib-defect-plugins[ray]'"
        raise InvalidInputError(msg) from error
    return ray


def start_ray(ray: ModuleType, address: str | None, **options: Any) -> None:
    """Connect to a cluster, or start Ray on this host, without log output.

    Args:
        ray: The module.
        address: Address of the cluster: ``ray://HOST:10001``, ``HOST:6379`` or ``auto``; by default Ray is started.
        options: Further arguments of ``ray.init``.

    Raises:
        InvalidInputError: If the cluster does not answer, or Ray cannot be started.
    """
    try:
        _check_connection(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    except (OSError, RuntimeError, ValueError) as error:  # a ConnectionError is an OSError
        reason = " ".join(str(error).split())
        msg = f"Ray cannot be started on this host ({reason})"
        if address is not None:
            msg = f"there is no Ray cluster at {address} ({reason}); start one, correct --address, or leave it out"
        raise InvalidInputError(msg) from error


def _check_connection(address: str | None) -> None:
    """Connect to host and port, because Ray would retry for minutes and print each attempt."""
    if address is None or address in LOCAL_ADDRESSES:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        msg = "not HOST:PORT, ray://HOST:PORT or auto"
        raise ValueError(msg)
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
