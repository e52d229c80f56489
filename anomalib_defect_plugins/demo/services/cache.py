"""TODO anomalib_defect_plugins/demo/services/cache.py."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Cache:
    """Keeps the values that were made last, each as long as its state is the same.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: dict[Hashable, tuple[object, Any]] = {}
        self._lock = threading.Lock()
        self._making: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    def __call__(self, key: Hashable, state: object, make: Callable[[], T]) -> T:
        """Give what is kept, or make it; an error is not kept. What others keep or make is not waited for."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                known = self._kept.pop(key, None)
            kept = known if known and known[0] == state else (state, make())
            with self._lock:
                self._kept[key] = kept
                while len(self._kept) > self.size:
                    del self._kept[next(iter(self._kept))]
        return kept[1]
