"""Mutation tests of the losses: change one arithmetic expression at a time and report which test fails.

    python tools/mutation.py --out docs/fault-drill.md

``make mutate`` runs this and updates the table in ``docs/fault-drill.md``. The changes are made in a copy of the
package; the tests are those of the model, without the slow ones.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fault_page import write_row

ROOT = Path(__file__).parents[1]

PACKAGE = "anomalib_defect_plugins"

COLUMNS = ["model, loss", "line", "becomes", "noticed by"]

MUTATIONS = [
    ("htpgan", "discriminator_loss", "torch.ones_like(real_logits)", "torch.zeros_like(real_logits)"),
    ("htpgan", "generator_loss", "torch.ones_like(fake_logits)", "torch.zeros_like(fake_logits)"),
    ("sidn", "segmentation_loss", "texture_weight * (1 - mask) + mask", "texture_weight * mask + (1 - mask)"),
    ("sidn", "similarity_loss", "(texture * defect).sum(-1).mean()", "(texture * defect).mean(-1).mean()"),
    ("sidn", "soft_assignment", "** (-(alpha + 1) / 2)", "** (-(alpha - 1) / 2)"),
    ("sidn", "target_distribution", "assignment.detach() ** 2 / ", "assignment.detach() / "),
    ("sidn", "center_loss", "return cosines(", "return -cosines("),
    ("onestage", "pixel_weights", "(1 - share) / normal", "share / normal"),
    ("onestage", "cross_entropy", "(mask, log_defect, log_normal)", "(mask, log_normal, log_defect)"),
    ("onestage", "stage_loss", "mask.to(logits.dtype)", "(~mask).to(logits.dtype)"),
    ("isugan", "adversarial_loss", "return (fake - 1).square().mean()", "return (fake + 1).square().mean()"),
    ("isugan", "discriminator_loss", "+ fake.square().mean()", "- fake.square().mean()"),
    ("isugan", "difference", "(image + 1) / 2, (other + 1) / 2", "image + 1, other + 1"),
    ("defectgan", "critic_loss", "return fake.mean() - real.mean()", "return fake.mean() + real.mean()"),
    ("defectgan", "gradient_penalty", "(norm - 1).square()", "(norm + 1).square()"),
    ("defectgan", "class_loss", "1 - labels.amax(1, keepdim=True)", "labels.amax(1, keepdim=True)"),
    ("defectgan", "map_size_loss", "maps.abs().mean() + maps_back", "maps.abs().mean() - maps_back"),
]
"""Model, function in its ``loss.py``, an expression in the function, and its replacement."""


def mutate(text: str, function: str, old: str, new: str) -> str:
    """Replace an expression that occurs once in a function."""
    start = text.index(f"\ndef {function}(")
    end = text.find("\ndef ", start + 1)
    before, body, after = text[:start], text[start : end if end > 0 else None], text[end:] if end > 0 else ""
    if body.count(old) != 1:
        msg = f"{function} has {old!r} {body.count(old)} times instead of once; update MUTATIONS"
        raise ValueError(msg)
    return before + body.replace(old, new) + after


def noticed_by(copy: Path, model: str) -> str:
    """Return the name of the first test that fails, or an empty string."""
    options = ["-x", "-q", "-m", "not slow", "--disable-warnings", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, f"tests/unit/models/{model}"]
    variables = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=copy, env=variables, capture_output=True, text=True, check=False)
    failed = re.search(r"^(?:FAILED|ERROR) \S+?(?:::(\S+))?(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode not in {0, 1} or (done.returncode == 1 and failed is None):
        sys.exit(f"the tests of {model} cannot be run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[1] if failed else ""


def main() -> int:
    """Run all mutations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", nargs="*", help="models whose losses are mutated; default: all")
    parser.add_argument("--out", type=Path, help="Markdown file whose table is updated")
    options = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if options.models is None or mutation[0] in options.models]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in (PACKAGE, "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for model, function, old, new in chosen:
            path = copy / PACKAGE / "models" / model / "loss.py"
            text = path.read_text()
            path.write_text(mutate(text, function, old, new))
            name = noticed_by(copy, model)
            path.write_text(text)
            missed += not name
            print(f"{model}, {function}: {name or 'NOT NOTICED'}", flush=True)
            if options.out:
                texts = (f"{model}, `{function}`", f"`{old.strip()}`", f"`{new.strip()}`")
                cells = [*texts, f"`{name}`" if name else "**none**"]
                write_row(options.out, "mutations", cells, COLUMNS)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    return missed > len(chosen) // 10


if __name__ == "__main__":
    sys.exit(main())
