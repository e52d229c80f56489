"""Drawing of defects in a region that a user has painted on a normal image, by a generator or a trained model."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE, VISIBLE, DefectGenerator
from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.demo.services.cache import Cache
from anomalib_defect_plugins.demo.services.results_store import ResultsStore, RunInfo
from anomalib_defect_plugins.inference.run_model import CHECKPOINT
from anomalib_defect_plugins.plugins.bridge import registered
from anomalib_defect_plugins.plugins.manager import Kind
from anomalib_defect_plugins.synthesis.defect_synthesizer import (
    DefectSynthesizer,
    SynthesizerClass,
    synthesizer_classes,
)

KIND_ARGUMENTS = {"procedural": "kinds", "perturb": "contents"}
"""Generators with several kinds of defects, and the argument that selects them."""

CANDIDATES = 4
"""Defects drawn at once, of which the one that fits the region best is used."""

MAX_ATTEMPTS = 5
"""Attempts to draw a visible defect."""

MIN_DEFECT_PIXELS = 8
"""Minimum number of pixels of a defect, and of the painted region."""

MARGIN = 8
"""Margin around the region that a generator draws on, in pixels."""

FADE_WIDTH = 2.0
"""Width over which a defect fades out at the border of the region, in pixels."""


@dataclass(frozen=True)
class DrawnDefect:
    """A defect drawn on an image.

    Args:
        image: Image with the defect, shape (H, W, 3), uint8; equal to the normal image outside the mask.
        mask: Mask of the defect, shape (H, W), bool.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


class DefectSource(ABC):
    """A source of defects.

    Args:
        title: Name for display.
        categories: Categories of its defects.
    """

    def __init__(self, title: str, categories: Sequence[str]) -> None:
        self.title = title
        self.categories = tuple(categories)

    @abstractmethod
    def _draw(self, image: Tensor, region: Tensor, category: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a defect.

        Args:
            image: Normal image, shape (3, H, W), float in [0, 1].
            region: Painted region, shape (H, W), bool.
            category: Category of the defect.
            rng: CPU generator.

        Returns:
            Image, shape (3, H, W), and mask, shape (H, W), bool.
        """

    def draw(
        self, image: npt.NDArray[np.uint8], region: npt.NDArray[np.bool_], category: str, seed: Sequence[int]
    ) -> DrawnDefect:
        """Draw a defect in a region.

        Args:
            image: Normal image, shape (H, W, 3), uint8, at least ``MIN_SIDE`` pixels a side.
            region: Region of the defect, shape (H, W), bool.
            category: Category of the defect.
            seed: Seed of all randomness.

        Raises:
            InvalidInputError: If the category is unknown, the region is empty, or no visible defect comes out.
        """
        check_one_of("category", category, self.categories)
        if region.sum() < MIN_DEFECT_PIXELS:
            msg = "nothing is painted yet; paint the region on the image in which the defects are to be"
            raise InvalidInputError(msg)
        rng = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        normal = torch.from_numpy(image).permute(2, 0, 1) / 255
        for _ in range(MAX_ATTEMPTS):
            drawn, mask_tensor = self._draw(normal, torch.from_numpy(region), category, rng)
            pixels, mask = (255 * drawn.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy(), mask_tensor.numpy()
            change = np.abs(pixels.astype(int) - image).max(2)
            if (mask & (change > 255 * VISIBLE)).sum() >= MIN_DEFECT_PIXELS:
                return DrawnDefect(np.where(mask[..., None], pixels, image), mask)
        msg = f"{self.title} makes no {category} that is visible in this region; paint a larger one, or choose another"
        raise InvalidInputError(msg)


class GeneratorSource(DefectSource):
    """A generator that needs no training.

    Args:
        name: Registered name.
        cls: Class of the generator.
    """

    def __init__(self, name: str, cls: type[DefectGenerator]) -> None:
        self._cls, self._argument = cls, KIND_ARGUMENTS.get(name)
        kinds = getattr(cls(), self._argument) if self._argument else (name,)
        super().__init__(name.replace("_", " "), kinds)

    def _draw(self, image: Tensor, region: Tensor, category: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        generator = self._cls(**{self._argument: (category,)}) if self._argument else self._cls()
        rows, columns = _bounding_box(region.numpy())
        crop, inner = image[:, rows, columns], region[rows, columns]
        candidates, masks = generator(crop.expand(CANDIDATES, -1, -1, -1).contiguous(), rng)
        masks = masks[:, 0]
        inside, total = (pixels.flatten(1).sum(1).float() for pixels in (masks & inner, masks))
        best = int((inside.square() / total.clamp(min=1)).argmax())
        # The defect fades out at the border of the region instead of ending at an edge.
        depth = torch.from_numpy(distance_transform_edt(np.pad(inner.numpy(), 1))[1:-1, 1:-1]).float()
        weight = (depth / FADE_WIDTH).clamp(0, 1) * masks[best]
        result, mask = image.clone(), torch.zeros_like(region)
        result[:, rows, columns] = torch.lerp(crop, candidates[best], weight)
        mask[rows, columns] = weight > 0
        return result, mask


class TrainedSource(DefectSource):
    """A trained model.

    Args:
        title: Name for display.
        model: Model in evaluation mode.
    """

    def __init__(self, title: str, model: DefectSynthesizer) -> None:
        super().__init__(title, model.categories)
        self._model = model

    def _draw(self, image: Tensor, region: Tensor, category: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        images, masks = _RegionDefects(self._model, category, region)(image[None], rng)
        return images[0], masks[0, 0]


class _RegionDefects(DefectGenerator):
    """Generator of a trained model's defects in one region.

    Args:
        model: Model in evaluation mode.
        category: Category of the defects.
        region: Region of the defects, shape (H, W), bool.
    """

    def __init__(self, model: DefectSynthesizer, category: str, region: Tensor) -> None:
        self.model = model
        labels = torch.tensor([float(name == category) for name in model.categories])
        self.control = labels[None, :, None, None] * region

    def draw(self, images: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw defects on images (1, C, H, W)."""
        return self.model.draw_defects(images, self.control, rng)


class DefectSources:
    """All sources of defects: trained models of the results, and generators.

    Args:
        store: The results.
    """

    def __init__(self, store: ResultsStore) -> None:
        self.store = store
        self._trained = Cache(1)  # users try several regions with one model

    def titles(self) -> dict[str, str]:
        """Return the titles of the sources by name, trained models first."""
        trained = {run.key: f"{run.title} (trained model)" for run in self.store.runs() if _trained_class(run)}
        return trained | {name: f"{name.replace('_', ' ')} (needs no training)" for name in _generators()}

    def get(self, name: str) -> DefectSource:
        """Return a source.

        Raises:
            InvalidInputError: If the name is unknown, or the checkpoint cannot be loaded.
        """
        if name in (generators := _generators()):
            return GeneratorSource(name, generators[name])
        run = self.store.run(name)
        cls = _trained_class(run)
        if cls is None:
            msg = f"{run.title} is not a trained model that makes defects; choose one of the list"
            raise InvalidInputError(msg)
        path = run.record.folder / CHECKPOINT
        return self._trained(path, path.stat().st_mtime_ns, lambda: _load(run, cls))


def _generators() -> dict[str, type[DefectGenerator]]:
    """Return the generators that need no training, those with several kinds of defects first."""
    generators = {name: cls for name, cls in registered(Kind.GENERATOR).items() if _has_defaults(cls)}
    return dict(sorted(generators.items(), key=lambda item: (item[0] not in KIND_ARGUMENTS, item[0])))


def _has_defaults(cls: type[DefectGenerator]) -> bool:
    """Whether a generator can be created without arguments; one that needs a checkpoint cannot."""
    parameters = inspect.signature(cls).parameters.values()
    kinds = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    if cls.needs_checkpoint:
        return False
    return all(parameter.default is not parameter.empty or parameter.kind in kinds for parameter in parameters)


def _trained_class(run: RunInfo) -> SynthesizerClass | None:
    """Return the class of a run's model if it synthesizes defects and has been kept."""
    name = (run.record.run.model.class_path or "").rpartition(".")[2].lower()
    if not (run.record.folder / CHECKPOINT).is_file():
        return None
    classes = synthesizer_classes().items()
    return next((cls for key, cls in classes if name in {key.lower(), cls.__name__.lower()}), None)


def _load(run: RunInfo, cls: SynthesizerClass) -> TrainedSource:
    try:
        model = cls.load_for_synthesis(run.record.folder / CHECKPOINT)
    except UserError as error:
        msg = f"the checkpoint of {run.title} cannot be loaded; repeat the run"
        raise InvalidInputError(msg) from error
    return TrainedSource(f"{cls.__name__} on {run.data}", model)


def _bounding_box(region: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the bounding box of a region with a margin, at least ``MIN_SIDE`` pixels a side."""
    rows, columns = cast(tuple[slice, slice], find_objects(region.astype(np.uint8))[0])
    height, width = region.shape
    return _widen(rows, height), _widen(columns, width)


def _widen(side: slice, length: int) -> slice:
    margin = max(MARGIN, -(-(MIN_SIDE - (side.stop - side.start)) // 2))
    start = min(max(0, side.start - margin), max(0, length - MIN_SIDE))
    return slice(start, max(min(length, side.stop + margin), min(length, start + MIN_SIDE)))
