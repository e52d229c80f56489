"""Hook specifications of plugins, one for each kind of class.

Every hook receives a ``register`` callback and calls it once per class::

    from anomalib_defect_plugins.plugins import hookimpl


    @hookimpl
    def register_models(register):
        register(MyModel)
"""

from typing import Protocol

import pluggy

PROJECT_NAME = "anomalib_defect_plugins"
"""Name of the pluggy project and of the entry-point group of plugins."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class Register(Protocol):
    """Callback that a hook receives."""

    def __call__(self, cls: type, name: str | None = None) -> None:
        """Register ``cls`` under ``name``, an identifier; by default the class name in lower case.

        The default name of a data module is its class name as it is. Names are case-insensitive, and the class name is
        reserved along with ``name``.
        """


@hookspec
def register_models(register: Register) -> None:
    """Register subclasses of ``anomalib.models.components.AnomalibModule``.

    ``anomalib-defects list`` shows the optional class attributes ``supervision: Supervision`` and ``paper: str``.
    anomalib's ``get_model(name)`` and ``list_models()`` see direct subclasses only.
    """


@hookspec
def register_datamodules(register: Register) -> None:
    """Register subclasses of ``anomalib.data.AnomalibDataModule``."""


@hookspec
def register_defect_generators(register: Register) -> None:
    """Register subclasses of ``anomalib_defect_plugins.generators.DefectGenerator``."""
