"""Hypothesis strategies of mask files in any encoding, and of data folders that hold other things too."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from mask_samples import REFUSED, SAMPLES, Marks, photo
from PIL import Image
from strategies import DAMAGES, Damage

SIDE = 24


@st.composite
def drawings(draw: st.DrawFn) -> Marks:
    """Draw a mask of one to three rectangles, which may mark everything."""
    height, width = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    marks = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, 3))):
        top, left = draw(st.integers(0, height - 8)), draw(st.integers(0, width - 8))
        marks[top : top + draw(st.integers(4, 30)), left : left + draw(st.integers(4, 30))] = True
    return marks


@st.composite
def mask_files(draw: st.DrawFn, folder: Path) -> tuple[Path, Marks, str, Damage | None]:
    """Write a mask file to a folder, valid or damaged.

    Returns:
        The file, what is drawn, the name of the encoding, and the damage.
    """
    name = draw(st.sampled_from([*SAMPLES, *REFUSED]))
    suffix, write = (SAMPLES | REFUSED)[name][:2]
    marks, damage = draw(drawings()), draw(st.none() | st.none() | DAMAGES)
    path = folder / f"mask{suffix}"
    write(path, marks)
    if damage is not None:
        path.write_bytes(damage(path.read_bytes()))
    return path, marks, name, damage


NAMES = ("mask", "masks", "Masks", "gt", "GT", "ground_truth", "labels", "annotations", "results", "maps", "outputs",
         ".cache", "__MACOSX", "@eaDir", ".ipynb_checkpoints", "mine", "dent", "good", "scratch", "scratch/masks",
         "masks/scratch", "results/run/images/scratch")  # fmt: skip
"""Folders that masks, photos and other files are put into."""

FILES = ("{}.png", "{}.jpg", "{}_GT.png", "{}_mask.png", "{}_label.bmp", "{}-gt.tif", "GT_{}.png", "x{}.png")
"""Names of files by the number of an image."""

PHOTO, MASK, EMPTY_MASK = "photo", "mask", "empty mask"


@st.composite
def folder_layouts(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Draw the content of a data folder: paths, and what the files are; folders without a file end with ``/``."""
    content = [(f"{kind}/{number}.png", PHOTO) for kind in ("good", "scratch") for number in range(3)]
    for _ in range(draw(st.integers(0, 3))):
        folder, name = draw(st.sampled_from(NAMES)), draw(st.sampled_from(FILES))
        kind = draw(st.sampled_from([PHOTO, MASK, MASK, EMPTY_MASK, "text", "nothing"]))
        numbers = draw(st.sampled_from([range(3), range(1), range(7, 9)]))
        if kind in {MASK, EMPTY_MASK} and not _is_known_by_name(folder, name, numbers):
            kind = PHOTO
        paths = [f"{folder}/{name.format(number)}" for number in numbers]
        content += {
            "text": [(f"{folder}/model.ckpt", "text")],
            "nothing": [(f"{folder}/", "nothing")],
        }.get(kind, [(path, kind) for path in paths if path not in dict(content)])
    return content


def _is_known_by_name(folder: str, name: str, numbers: range) -> bool:
    """Whether masks can be told from photos: by the folder, or by a name like that of an image in the same folder."""
    return folder not in {"mine", "dent", "good", "scratch"} or (
        folder in {"good", "scratch"} and name not in {"{}.png", "x{}.png"} and numbers[0] == 0
    )


def write_layout(root: Path, content: list[tuple[str, str]]) -> None:
    """Write a data folder."""
    for name, kind in content:
        path = root / name
        (path if kind == "nothing" else path.parent).mkdir(parents=True, exist_ok=True)
        if kind == PHOTO:
            photo((SIDE, SIDE)).save(path)
        elif kind in {MASK, EMPTY_MASK}:
            mask = Image.new("L", (SIDE, SIDE))
            mask.paste(255 if kind == MASK else 0, (4, 4, 12, 12))
            mask.save(path)
        elif kind == "text":
            path.touch()
