"""Training batches of a model's own, in place of the data module's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from anomalib_defect_plugins.models.components.callbacks import TeardownOnFailure

if TYPE_CHECKING:
    from anomalib.models.components import AnomalibModule as _Module
else:
    _Module = object


class CustomTrainLoader(_Module):
    """Replaces the training loader of the data module. Comes before ``AnomalibModule`` among the bases of a model."""

    _replaced: dict[str, Any] | None = None

    def use_train_loader(self, loader: "DataLoader[Any]") -> None:
        """Replace the data module's training loader until training ends or fails."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  (anomalib's engine sets it)
        # An instance attribute shadows the method of the class until teardown removes it.
        self._replaced = {name: value for name, value in vars(datamodule).items() if name == "train_dataloader"}
        datamodule.train_dataloader = lambda: loader

    def teardown(self, stage: str) -> None:
        """Restore the data module's own training loader."""
        if stage == "fit" and self._replaced is not None:
            attributes = vars(self.trainer.datamodule)  # type: ignore[attr-defined]
            attributes.pop("train_dataloader", None)
            attributes.update(self._replaced)
            self._replaced = None

    def configure_callbacks(self) -> Sequence[Callback]:
        """Add a teardown that also runs when training fails."""
        return [*cast(Sequence[Callback], super().configure_callbacks()), TeardownOnFailure()]
