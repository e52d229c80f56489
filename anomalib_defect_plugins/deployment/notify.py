"""Messages about inspected images: to a web address, or to a topic of an MQTT broker."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from anomalib_defect_plugins.core.errors import InvalidInputError

TIMEOUT_S = 10

Notifier = Callable[[dict[str, Any]], None]


def webhook(url: str) -> Notifier:
    """Return a function that posts messages as JSON.

    Args:
        url: Web address, ``http`` or ``https``.

    Raises:
        InvalidInputError: If it is not one.
    """
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        msg = f"--webhook {url} is not a web address; use one such as https://host/path"
        raise InvalidInputError(msg)

    def notify(content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
            pass

    return notify


def mqtt(address: str) -> Notifier:
    """Return a function that publishes messages as JSON, and waits until the broker has them (QoS 1).

    Args:
        address: Broker and topic, ``HOST:PORT/TOPIC``; the default port is 1883.

    Raises:
        InvalidInputError: If it is not one, or paho-mqtt is not installed.
    """
    try:
        from paho.mqtt.publish import single
    except ModuleNotFoundError as error:
        msg = "--mqtt needs paho-mqtt; pip install 'anomalib-defect-plugins[mqtt]'"
        raise InvalidInputError(msg) from error
    host, port, topic = _broker(address)

    def notify(content: dict[str, Any]) -> None:
        try:
            single(topic, json.dumps(content), qos=1, hostname=host, port=port)
        except Exception as error:  # paho raises errors of many types
            raise OSError(str(error) or type(error).__name__) from error

    return notify


def _broker(address: str) -> tuple[str, int, str]:
    parts = urlsplit(f"mqtt://{address.removeprefix('mqtt://')}")
    try:
        port = parts.port or 1883
    except ValueError:
        port = 0
    topic = parts.path.removeprefix("/")
    if not (parts.hostname and port and topic) or set(address) & {"#", "+"}:
        msg = f"--mqtt {address} is not a broker with a topic; use one such as broker:1883/line1/verdicts"
        raise InvalidInputError(msg)
    return parts.hostname, port, topic
