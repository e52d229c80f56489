"""Compare Defect-GAN's and CutPaste's defects for Magnetic Tile: distances, copies and contact sheets.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/defectgan/quality.py --folders defectgan=results/made --extractor mobilenetv2_100 \
        --out results/quality

The folders are those of ``anomalib-defects synthesize``. CutPaste's rectangles and scars are drawn on the same normal
training images, the same number as in the first folder, and stored beside the report. ``--windows`` compares windows of
``windows.py``: the real ones of tiles outside the training set, or with ``--split train`` those of the training set, to
find copies. ``--extractor inception`` computes FID, which requires torch-fidelity and its weights.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import cast

import torch
from anomalib.data import AnomalibDataModule
from pasted import write_generated

sys.path.append(str(Path(__file__).parents[1]))

from common import data_root

from anomalib_defect_plugins.data import DefectFolder, MagneticTile
from anomalib_defect_plugins.generators import CutPasteDefects, CutPasteScarDefects
from anomalib_defect_plugins.metrics.features import make_extractor
from anomalib_defect_plugins.synthesis.folder import read_table, synthetic_defects
from anomalib_defect_plugins.synthesis.quality_report import write_quality_report


def main() -> None:
    """Write the report and print it."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folders", nargs="+", required=True, metavar="NAME=DIR", help="synthetic images of one size")
    parser.add_argument("--windows", type=Path, help="folder of windows.py, instead of whole tiles")
    parser.add_argument("--split", choices=["train", "test"], default="test", help="split with the real windows")
    parser.add_argument("--extractor", default="inception", help="inception or a timm model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/defectgan/quality"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    extractor = make_extractor(options.extractor)
    data: AnomalibDataModule
    training: AnomalibDataModule
    if options.windows is None:
        data = training = MagneticTile(data_root("magnetic_tile"), num_workers=0)
    else:
        data, training = (DefectFolder(options.windows / name, num_workers=0) for name in (options.split, "train"))
        training.setup()
    data.setup()
    folders = {name: Path(path) for name, _, path in (word.partition("=") for word in options.folders)}
    first = next(iter(folders.values()))
    height, width = cast(torch.Tensor, synthetic_defects(first)[0].image).shape[-2:]
    size, num = (height, width), len(read_table(first))
    for generator in (CutPasteDefects(), CutPasteScarDefects()):
        folders[generator.name] = options.out / f"{generator.name}-{'x'.join(map(str, size))}"
        write_generated(folders[generator.name], training.train_data, size, num, options.seed, generator)
    print(write_quality_report(folders, data, options.out, extractor, options.seed).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
