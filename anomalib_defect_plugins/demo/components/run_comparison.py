"""Two runs on the same test images, side by side: which images there are, and one of them as HTML."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from anomalib_defect_plugins.core.checks import check_one_of
from anomalib_defect_plugins.core.errors import InvalidInputError, UserError
from anomalib_defect_plugins.demo.components.benchmark_figures import TEMPLATES
from anomalib_defect_plugins.demo.services.results_store import RunInfo, Store
from anomalib_defect_plugins.demo.services.run_images import name_of
from anomalib_defect_plugins.report.images import as_uri
from anomalib_defect_plugins.report.labels import three_significant

SIDE, SMALL = 384, 88
"""Longer sides of the pictures, and of those on the strip, in pixels."""

PAGE = 12
"""Images on the strip."""

SHOWN = {
    "all": "All images",
    "missed": "Missed defects",
    "false_alarm": "False alarms",
    "wrong": "Any error",
}
"""Which images are shown."""

OF = {"either": "Either model", "a": "Model A", "b": "Model B", "both": "Both models"}
"""Whose errors count."""

DIM = 0.35
"""Brightness of the image under a mask."""

RIGHT, FALSE, MISSED = (255, 255, 255), (230, 159, 0), (86, 180, 233)
"""Colours of pixels that are found and defective, found only, and defective only: told apart by the colour-blind."""


class Limits(NamedTuple):
    """Lowest and highest score of a run, and its threshold; they lay out the bar of a score."""

    low: float
    high: float
    threshold: float | None

    def place(self, value: float) -> float:
        """Where a value is on the bar, in percent."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(100 * min(1.0, max(0.0, share)), 1)


@dataclass(frozen=True)
class Pair:
    """Two runs and the images that both were tested with.

    Args:
        store: Where they are.
        a: The one.
        b: The other; it may be the same.
        show: Which images are shown, of ``SHOWN``.
        of: Whose errors count, of ``OF``.

    Raises:
        InvalidInputError: The choice is none, or a table of images cannot be read.
    """

    store: Store
    a: RunInfo
    b: RunInfo
    show: str = "all"
    of: str = "either"

    def __post_init__(self) -> None:
        """Check the choice."""
        check_one_of("images to show", self.show, SHOWN)
        check_one_of("errors to count", self.of, OF)

    @cached_property
    def images(self) -> pd.DataFrame:
        """The images that both were tested with, in the order of the first: columns end in ``_a`` and ``_b``."""
        sides = []
        for run in (self.a, self.b):
            table = self.store.images(run.key)
            # A data set may hold a file twice: the first goes with the first, the second with the second.
            turn = table.groupby("image_path").cumcount()
            sides.append(table.assign(index=np.arange(len(table)), turn=turn))
        return sides[0].merge(sides[1], on=["image_path", "turn"], suffixes=("_a", "_b"))

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """Those of them that are shown."""
        if self.show == "all":
            return self.images
        kinds = ("missed", "false_alarm") if self.show == "wrong" else (self.show,)
        of = {side: self.images[[f"{kind}_{side}" for kind in kinds]].any(axis=1) for side in "ab"}
        wanted = of["a"] | of["b"] if self.of == "either" else of["a"] & of["b"] if self.of == "both" else of[self.of]
        return self.images[wanted]

    def limits(self, run: RunInfo) -> Limits:
        """Lay out the bar of the scores of a run."""
        scores = self.store.images(run.key).score
        known = [*scores[np.isfinite(scores)], *([] if run.threshold is None else [run.threshold])]
        return Limits(min(known, default=0.0), max(known, default=1.0), run.threshold)


def show_walk(pair: Pair, at: Any = 0) -> str:
    """Write the image of a place among those that are shown, and the strip around it.

    Args:
        pair: The runs and the choice.
        at: The place.

    Raises:
        InvalidInputError: There is no such place.
    """
    chosen = pair.chosen
    if len(chosen) and (type(at) is not int or not 0 <= at < len(chosen)):
        msg = f"there is no image {str(at)[:20]!r} among those shown; give a number from 0 to {len(chosen) - 1}"
        raise InvalidInputError(msg)
    first = at - at % PAGE if len(chosen) else 0
    return TEMPLATES.get_template("walk.html").render(
        pair=pair,
        count=len(chosen),
        total=len(pair.images),
        at=at,
        page=PAGE,
        first=first,
        choice="|".join((pair.a.key, pair.b.key, pair.show, pair.of)),
        strip=[_on_strip(pair, place) for place in range(first, min(first + PAGE, len(chosen)))],
        image=_image(pair, chosen.iloc[at].to_dict()) if len(chosen) else None,
        filtered=pair.show != "all",
    )


def _on_strip(pair: Pair, place: int) -> dict[str, Any]:
    row = pair.chosen.iloc[place].to_dict()
    uri, _ = _picture(lambda: pair.store.picture(pair.a.key, int(row["index_a"]), "image", SMALL), "JPEG")
    return {"place": place, "uri": uri, "name": name_of(row), "marks": [_verdict(row, side) for side in "ab"]}


def _image(pair: Pair, row: dict[str, Any]) -> dict[str, Any]:
    """Gather what is shown of an image."""
    index = int(row["index_a"])
    kind = str(row.get("defect_type_a", ""))
    label = "defective" if row["label_a"] else "normal"
    return {
        "name": name_of(row),
        "label": f"{label} ({kind})" if row["label_a"] and kind not in {"", "abnormal", "defective"} else label,
        "size": f"{row['width_a']} × {row['height_a']} pixels",
        "photo": _picture(lambda: pair.store.picture(pair.a.key, index, "image", SIDE), "JPEG"),
        "truth": _picture(lambda: _truth(pair.store, pair.a, index), "JPEG"),
        "sides": [_side(pair, run, row, side) for run, side in ((pair.a, "a"), (pair.b, "b"))],
        "proportions": f"{row['width_a']} / {row['height_a']}",
    }


def _side(pair: Pair, run: RunInfo, row: dict[str, Any], side: str) -> dict[str, Any]:
    """Gather what one of the runs says of an image."""
    index, score, limits = int(row[f"index_{side}"]), float(row[f"score_{side}"]), pair.limits(run)
    return {
        "letter": side.upper(),
        "run": run,
        "overlay": _picture(lambda: pair.store.picture(run.key, index, "overlay", SIDE), "JPEG"),
        "mask": _picture(lambda: _agreement(pair.store, run, index), "JPEG"),
        "score": three_significant(score),
        "place": limits.place(score),
        "threshold": None if limits.threshold is None else three_significant(limits.threshold),
        "threshold_place": None if limits.threshold is None else limits.place(limits.threshold),
        "verdict": _verdict(row, side),
    }


def _verdict(row: dict[str, Any], side: str) -> dict[str, str]:
    called = "defective" if row[f"pred_label_{side}"] else "normal"
    if row[f"missed_{side}"]:
        return {"kind": "missed", "called": called, "text": "missed defect"}
    if row[f"false_alarm_{side}"]:
        return {"kind": "alarm", "called": called, "text": "false alarm"}
    return {"kind": "right", "called": called, "text": "right"}


def _truth(store: Store, run: RunInfo, index: int) -> np.ndarray:
    """Draw the ground truth over the image, (H, W, 3), uint8."""
    truth = store.picture(run.key, index, "mask", SIDE)
    drawn = _dimmed(store, run, index, truth.shape)
    drawn[truth] = RIGHT
    return drawn


def _agreement(store: Store, run: RunInfo, index: int) -> np.ndarray:
    """Draw the mask that a model finds, (H, W, 3), uint8, in colours that say where it agrees with the ground truth."""
    found = store.picture(run.key, index, "found", SIDE)
    drawn = _dimmed(store, run, index, found.shape)
    drawn[found] = RIGHT
    with contextlib.suppress(UserError):  # where no ground truth is known, there is nothing to agree with
        truth = store.picture(run.key, index, "mask", SIDE)
        drawn[found & ~truth] = FALSE
        drawn[truth & ~found] = MISSED
    return drawn


def _dimmed(store: Store, run: RunInfo, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Give the image, dark and grey, for colours to stand out from; black if it cannot be read."""
    try:
        photo = store.picture(run.key, index, "image", SIDE)
    except UserError:
        return np.zeros((*shape, 3), np.uint8)
    return np.repeat((DIM * photo.mean(2, keepdims=True)).astype(np.uint8), 3, axis=2)


def _picture(read: Callable[[], np.ndarray], kind: str) -> tuple[str | None, str]:
    """Give a picture as a data URI; or nothing, and why there is none."""
    try:
        return _encoded(read(), kind), ""
    except UserError as error:
        return None, str(error)


def _encoded(values: np.ndarray, kind: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return as_uri(buffer.getvalue(), f"image/{kind.lower()}")
