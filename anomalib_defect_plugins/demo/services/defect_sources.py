"""Makes defects in a region that someone has painted on a normal image: by a trained Defect-GAN, or by a generator."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.defect_generator import MIN_SIDE, VISIBLE
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.demo.services.results_store import RunInfo, Store
from anomalib_defect_plugins.generators import DefectGanDefects, DefectGenerator
from anomalib_defect_plugins.inference.run_model import BROKEN, CHECKPOINT
from anomalib_defect_plugins.models.defectgan import DefectGan
from anomalib_defect_plugins.plugins.bridge import registered
from anomalib_defect_plugins.plugins.manager import Kind

KIND_OF = {"procedural": "kinds", "perturb": "contents"}
"""Generators that make several kinds of defects, and the argument that says which."""

CANDIDATES, ATTEMPTS = 4, 5
"""Defects that are drawn at a time, of which the one that fits the region best is taken, and how often."""

LEAST = 8
"""Pixels that a defect has at least."""

MARGIN = 8
"""Pixels around the region that a generator sees."""

SOFT = 2.0
"""Pixels over which a defect fades out where the region cuts it off."""


@dataclass(frozen=True)
class Made:
    """A defect that has been made.

    Args:
        image: (H, W, 3), uint8.
        mask: (H, W), bool; the image is the normal one elsewhere.
    """

    image: np.ndarray
    mask: np.ndarray


class Source(ABC):
    """Something that makes defects.

    Args:
        title: What people call it.
        categories: What it can make.
    """

    def __init__(self, title: str, categories: Sequence[str]) -> None:
        self.title = title
        self.categories = tuple(categories)

    @abstractmethod
    def _draw(self, image: Tensor, region: Tensor, category: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Give (3, H, W) with a defect and its mask (H, W), bool, for (3, H, W), in [0, 1], and (H, W), bool."""

    def make(self, image: np.ndarray, region: np.ndarray, category: str, seed: Sequence[int]) -> Made:
        """Make a defect.

        Args:
            image: The normal image, (H, W, 3), uint8, ``MIN_SIDE`` pixels a side or more.
            region: Where it is to be, (H, W), bool.
            category: What it is to be.
            seed: What alone it depends on besides.

        Raises:
            InvalidInputError: There is no such category, no region, or nothing to be seen came out.
        """
        check_one_of("category", category, self.categories)
        if region.sum() < LEAST:
            msg = "nothing is painted yet; paint the region on the image in which the defects are to be"
            raise InvalidInputError(msg)
        rng = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        normal = torch.from_numpy(image).permute(2, 0, 1) / 255
        for _ in range(ATTEMPTS):
            made, mask = self._draw(normal, torch.from_numpy(region), category, rng)
            pixels = (255 * made.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
            change = np.abs(pixels.astype(int) - image).max(2)
            if (mask.numpy() & (change > 255 * VISIBLE)).sum() >= LEAST:
                return Made(np.where(mask.numpy()[..., None], pixels, image), mask.numpy())
        msg = f"{self.title} makes no {category} that is seen in this region; paint a larger one, or choose another"
        raise InvalidInputError(msg)


class Drawn(Source):
    """One of the generators that need no training.

    Args:
        name: The name that it is registered by.
        cls: Its class.
    """

    def __init__(self, name: str, cls: type[DefectGenerator]) -> None:
        self._cls, self._argument = cls, KIND_OF.get(name)
        kinds = getattr(cls(), self._argument) if self._argument else (name,)
        super().__init__(name.replace("_", " "), kinds)

    def _draw(self, image: Tensor, region: Tensor, category: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        generator = self._cls(**{self._argument: (category,)}) if self._argument else self._cls()
        box = _around(region.numpy())
        crop, inner = image[(slice(None), *box)], region[box]
        made, masks = generator(crop.expand(CANDIDATES, -1, -1, -1).contiguous(), rng)
        masks = masks[:, 0]
        inside, whole = ((it.flatten(1).sum(1)).float() for it in (masks & inner, masks))
        best = int((inside.square() / whole.clamp(min=1)).argmax())
        # At the border of the region, a defect fades out instead of ending at an edge.
        depth = torch.from_numpy(distance_transform_edt(np.pad(inner.numpy(), 1))[1:-1, 1:-1]).float()
        weight = (depth / SOFT).clamp(0, 1) * masks[best]
        result, mask = image.clone(), torch.zeros_like(region)
        result[(slice(None), *box)] = torch.lerp(crop, made[best], weight)
        mask[box] = weight > 0
        return result, mask


class Learnt(Source):
    """A trained Defect-GAN.

    Args:
        title: What people call it.
        model: The model, in evaluation mode.
    """

    def __init__(self, title: str, model: DefectGan) -> None:
        super().__init__(title, model.categories)
        self._model = model

    def _draw(self, image: Tensor, region: Tensor, category: str, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        made, mask = _PaintedDefects(self._model, category, region)(image[None], rng)
        return made[0], mask[0, 0]


class _PaintedDefects(DefectGanDefects):
    """Defects of a Defect-GAN whose control map someone has painted.

    Args:
        model: The model.
        category: Type of the defects.
        painted: (H, W), bool.
    """

    def __init__(self, model: DefectGan, category: str, painted: Tensor) -> None:
        self.model = model
        self.category = category
        self.region = "whole"
        self.threshold = 0.5
        self.painted = painted

    def _control(self, images: Tensor, rng: torch.Generator) -> Tensor:
        return super()._control(images, rng) * self.painted.to(images)


class Sources:
    """Everything that makes defects.

    Args:
        store: The results, whose trained Defect-GANs are among it.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._loaded: tuple[Path, int, Learnt] | None = None

    def titles(self) -> dict[str, str]:
        """Give what people call each source, by its name; trained ones first."""
        trained = {run.key: f"Defect-GAN · {run.title}" for run in self.store.runs() if _is_defectgan(run)}
        return trained | {name: f"{name.replace('_', ' ')} (needs no training)" for name in _generators()}

    def get(self, name: str) -> Source:
        """Give a source.

        Raises:
            InvalidInputError: There is none of that name, or its checkpoint cannot be loaded.
        """
        if name in (generators := _generators()):
            return Drawn(name, generators[name])
        run = self.store.run(name)
        if not _is_defectgan(run):
            msg = f"{run.title} is no trained Defect-GAN; choose one of the list"
            raise InvalidInputError(msg)
        path = run.record.folder / CHECKPOINT
        with self._lock:  # one is kept, for people try several regions with it
            state = path, path.stat().st_mtime_ns
            if self._loaded is None or self._loaded[:2] != state:
                self._loaded = (*state, Learnt(f"Defect-GAN on {run.data}", _load(path, run)))
            return self._loaded[2]


def _generators() -> dict[str, type[DefectGenerator]]:
    found = {name: cls for name, cls in registered(Kind.GENERATOR).items() if not issubclass(cls, DefectGanDefects)}
    return dict(sorted(found.items(), key=lambda item: (item[0] not in KIND_OF, item[0])))


def _is_defectgan(run: RunInfo) -> bool:
    name = run.record.model.class_path.rpartition(".")[2].lower()
    return name == DefectGan.__name__.lower() and (run.record.folder / CHECKPOINT).is_file()


def _load(path: Path, run: RunInfo) -> DefectGan:
    try:
        with torch.random.fork_rng(devices=[]):
            # A checkpoint may name what is to make the object; it has no say in that.
            model = DefectGan.load_from_checkpoint(
                path, map_location="cpu", weights_only=True, _instantiator=None, evaluator=False, visualizer=False
            )
    except BROKEN as error:
        msg = f"the checkpoint of {run.title} cannot be loaded; make the run again"
        raise InvalidInputError(msg) from error
    return model.eval().requires_grad_(False)


def _around(region: np.ndarray) -> tuple[slice, slice]:
    """Give the box around a region with a margin, ``MIN_SIDE`` pixels a side or more."""
    found = find_objects(region.astype(np.uint8))[0]
    return tuple(_widened(side, length) for side, length in zip(found, region.shape, strict=True))


def _widened(side: slice, length: int) -> slice:
    more = max(MARGIN, -(-(MIN_SIDE - (side.stop - side.start)) // 2))
    start = min(max(0, side.start - more), max(0, length - MIN_SIDE))
    return slice(start, max(min(length, side.stop + more), min(length, start + MIN_SIDE)))
