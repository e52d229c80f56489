"""Report on defects that Defect-GAN made for Magnetic Tile, beside CutPaste's: distances, copies and contact sheets.

    DEFECT_DATA_ROOT=... HF_HOME=$DEFECT_DATA_ROOT/hf_home HF_HUB_OFFLINE=1 \
        python experiments/defectgan/quality.py --folders defectgan=results/made --extractor mobilenetv2_100 \
        --out results/quality

The folders are those of ``anomalib-defects synthesize``. CutPaste's rectangles and scars are drawn on the same normal
training images, as many as the first folder has, and kept beside the report. ``--windows`` compares windows of
``windows.py``: the real ones of tiles that have not trained, or with ``--split train`` of those that have, to find
copies. ``--extractor inception`` gives FID, where torch-fidelity is installed and its weights can be had.
"""

import os
from argparse import ArgumentParser
from pathlib import Path

import torch
from pasted import write_generated

from anomalib_defect_plugins.data import DefectFolder, MagneticTile
from anomalib_defect_plugins.generators import CutPasteDefects, CutPasteScarDefects
from anomalib_defect_plugins.metrics.features import make_extractor
from anomalib_defect_plugins.synthesis.folder import read_table, synthetic_defects
from anomalib_defect_plugins.synthesis.quality_report import report


def main() -> None:
    """Write the report, and print it."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folders", nargs="+", required=True, metavar="NAME=DIR", help="synthetic images, one size")
    parser.add_argument("--windows", type=Path, help="folder of windows.py, instead of whole tiles")
    parser.add_argument("--split", choices=["train", "test"], default="test", help="whose windows are the real ones")
    parser.add_argument("--extractor", default="inception", help="inception or a timm model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/defectgan/quality"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    extractor = make_extractor(options.extractor)
    if options.windows is None:
        data = training = MagneticTile(Path(os.environ["DEFECT_DATA_ROOT"]) / "magnetic_tile", num_workers=0)
    else:
        data, training = (DefectFolder(options.windows / name, num_workers=0) for name in (options.split, "train"))
        training.setup()
    data.setup()
    folders = {name: Path(path) for name, _, path in (word.partition("=") for word in options.folders)}
    first = next(iter(folders.values()))
    size, num = tuple(synthetic_defects(first)[0].image.shape[-2:]), len(read_table(first))
    for generator in (CutPasteDefects(), CutPasteScarDefects()):
        folders[generator.name] = options.out / f"{generator.name}-{'x'.join(map(str, size))}"
        write_generated(folders[generator.name], training.train_data, size, num, options.seed, generator)
    print(report(folders, data, options.out, extractor, options.seed).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
