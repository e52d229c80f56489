"""The hooks of a plugin: one for each kind of thing it may bring.

Every hook is handed a ``register`` callback and calls it once for each class::

    from anomalib_defect_plugins.plugins import hookimpl


    @hookimpl
    def register_models(register):
        register(MyModel)
"""

from typing import Protocol

import pluggy

PROJECT_NAME = "anomalib_defect_plugins"
"""Name of the pluggy project and of the entry-point group that plugins are found by."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class Register(Protocol):
    """The callback that a hook is handed."""

    def __call__(self, cls: type, name: str | None = None) -> None:
        """Offer ``cls`` under ``name``, an identifier; without one, under the name of the class in lower case.

        A data module keeps the case of its class. Names are compared without regard to case, and the name of the class
        counts as taken too.
        """


@hookspec
def register_models(register: Register) -> None:
    """Register subclasses of ``anomalib.models.components.AnomalibModule``.

    A class may say what it needs in ``supervision: Supervision`` and where it is from in ``paper: str``; both are shown
    by ``anomalib-defects list``. anomalib's ``get_model(name)`` and ``list_models()`` see direct subclasses only.
    """


@hookspec
def register_datamodules(register: Register) -> None:
    """Register subclasses of ``anomalib.data.AnomalibDataModule``."""


@hookspec
def register_defect_generators(register: Register) -> None:
    """Register subclasses of ``anomalib_defect_plugins.generators.DefectGenerator``."""
