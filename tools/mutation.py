"""Changes one arithmetic line of each loss, and looks which test notices: ``make mutate``.

Run as a program, it writes the table of ``docs/fault-drill.md``: ``mutation.py --out docs/fault-drill.md``. The lines are
changed in a copy; the tests are those of the model, without the slow ones.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fault_page import row

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
    ("sidn", "center_loss", "return cosine.mean()", "return -cosine.mean()"),
    ("onestage", "cross_entropy", "-torch.where(mask, log_defect", "torch.where(mask, log_defect"),
    ("onestage", "mean_where", "torch.where(places, values, 0)", "torch.where(places, 0, values)"),
    ("onestage", "stage_loss", "functional.logsigmoid(-logits)", "-functional.logsigmoid(logits)"),
    ("isugan", "adversarial_loss", "return (fake - 1).square().mean()", "return (fake + 1).square().mean()"),
    ("isugan", "discriminator_loss", "+ fake.square().mean()", "- fake.square().mean()"),
    ("isugan", "difference", "(image + 1) / 2, (other + 1) / 2", "image + 1, other + 1"),
    ("defectgan", "critic_loss", "return fake.mean() - real.mean()", "return fake.mean() + real.mean()"),
    ("defectgan", "gradient_penalty", ".norm(dim=1) - 1)", ".norm(dim=1) + 1)"),
    ("defectgan", "class_loss", "1 - labels.amax(1, keepdim=True)", "labels.amax(1, keepdim=True)"),
    ("defectgan", "map_size_loss", "there.abs().mean() + back", "there.abs().mean() - back"),
]
"""Model, function of its ``loss.py``, a part of one of its lines, and what it becomes."""


def mutate(text: str, function: str, old: str, new: str) -> str:
    """Change a part of a function that is there once."""
    start = text.index(f"\ndef {function}(")
    end = text.find("\ndef ", start + 1)
    before, body, after = text[:start], text[start : end if end > 0 else None], text[end:] if end > 0 else ""
    if body.count(old) != 1:
        msg = f"{function} has {old!r} {body.count(old)} times; mend the list"
        raise ValueError(msg)
    return before + body.replace(old, new) + after


def noticed_by(copy: Path, model: str) -> str:
    """Give the name of the first test that fails, or nothing."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not slow",
        "--disable-warnings",
        "-p",
        "no:cacheprovider",
    ]
    variables = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, f"tests/unit/models/{model}"], cwd=copy, env=variables, capture_output=True, text=True, check=False
    )
    found = re.search(r"^(?:FAILED|ERROR) \S+?(?:::(\S+))?(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode not in {0, 1} or (done.returncode == 1 and found is None):
        sys.exit(f"the tests of {model} cannot be run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found[1] if found else ""


def main() -> int:
    """Go through the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", nargs="*", help="only the losses of these")
    parser.add_argument("--out", type=Path, help="Markdown file in which the table is written anew")
    options = parser.parse_args()
    chosen = [it for it in MUTATIONS if options.models is None or it[0] in options.models]
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
                row(options.out, "mutations", cells, COLUMNS)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    return missed > len(chosen) // 10


if __name__ == "__main__":
    sys.exit(main())
