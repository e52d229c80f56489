"""Training batches of a model's own, in place of the data module's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from anomalib_defect_plugins.models.components.callbacks import TeardownOnFailure
from anomalib_defect_plugins.models.components.checks import datamodule_of

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object


class CustomTrainLoader(_Module):
    """Replaces the training loader of the data module. Comes before ``AnomalibModule`` among the bases of a model."""

    draws_own_batches: ClassVar[bool] = True
    _replaced: dict[str, Any] | None = None

    def use_train_loader(self, loader: "DataLoader[Any]") -> None:
        """Replace the data module's training loader until training ends or fails."""
        attributes = self._datamodule_attributes()
        self._replaced = {name: value for name, value in attributes.items() if name == "train_dataloader"}
        # An instance attribute shadows the method of the class until teardown removes it.
        attributes["train_dataloader"] = lambda: loader

    def teardown(self, stage: str) -> None:
        """Restore the data module's own training loader."""
        if stage == "fit" and self._replaced is not None:
            attributes = self._datamodule_attributes()
            attributes.pop("train_dataloader", None)
            attributes.update(self._replaced)
            self._replaced = None
        super().teardown(stage)

    def _datamodule_attributes(self) -> dict[str, Any]:
        datamodule = datamodule_of(self.trainer)
        assert datamodule is not None, "models check for a data module before they replace its loader"  # noqa: S101
        return datamodule.__dict__

    def configure_callbacks(self) -> Sequence[Callback]:
        """Add a teardown that also runs when training fails."""
        return [*cast(Sequence[Callback], super().configure_callbacks()), TeardownOnFailure()]
