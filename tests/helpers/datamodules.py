"""Sets data modules up and checks how they fail."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from anomalib.data import AnomalibDataModule

DataModule = TypeVar("DataModule", bound=AnomalibDataModule)


def set_up(datamodule: DataModule) -> DataModule:
    """Prepare and set up a data module as a trainer does, and return it."""
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def error_line(action: Callable[[], object], error: type[Exception], root: Path) -> str:
    """Return the message of the error that ``action`` must raise, one line, with ``ROOT`` for ``root``."""
    with pytest.raises(error) as raised:
        action()
    message = str(raised.value)
    assert "\n" not in message
    return message.replace(str(root), "ROOT")
