"""A cache whose values are computed again when the state that they depend on changes."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

Value = TypeVar("Value")


class Cache:
    """Keeps the most recently used values, each until its state changes. Thread-safe.

    Args:
        size: Maximum number of values.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: dict[Hashable, tuple[object, Any]] = {}
        self._lock = threading.Lock()
        self._key_locks: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    def __call__(self, key: Hashable, state: object, compute: Callable[[], Value]) -> Value:
        """Return the value of ``key``, computed if it is missing or its state differs from ``state``.

        Errors are not cached. Different keys do not wait for each other.
        """
        with self._lock:
            key_lock = self._key_locks.setdefault(key, threading.Lock())
        with key_lock:
            with self._lock:
                cached = self._values.pop(key, None)
            entry = cached if cached and cached[0] == state else (state, compute())
            with self._lock:
                self._values[key] = entry
                while len(self._values) > self.size:
                    del self._values[next(iter(self._values))]
        return cast(Value, entry[1])
