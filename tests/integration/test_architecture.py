"""The layers of the package, and the imports that they allow. ``docs/architecture.md`` shows the same as a picture."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import anomalib_defect_plugins

PACKAGE = anomalib_defect_plugins.__name__
ROOT = Path(anomalib_defect_plugins.__file__).parent

LAYERS = (
    {"core"},
    {"plugins", "layers"},
    {"generators", "metrics", "results", "pre_processing", "post_processing"},
    {"data", "report"},
    {"models", "inference"},
    {"synthesis", "benchmark", "scaffold", "testing"},
    {"demo", "deployment"},
    {"cli"},
)
"""Folders and modules directly below the package, from the lowest layer to the highest."""

ABOVE_ALL = {"autoload", PACKAGE}
"""torch's entry point, and the public names, which are imported on first use."""

HEAVY = ("torch", "lightning", "anomalib")
"""Packages that ``core`` must not import."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if name.partition(".")[0] == PACKAGE)


def folder(module: str) -> str:
    """The folder or module directly below the package that a module belongs to."""
    return PACKAGE if module == PACKAGE else module.split(".")[1]


def layer(name: str) -> int:
    """The number of the layer of a folder, from 0."""
    if name in ABOVE_ALL:
        return len(LAYERS)
    (number,) = (number for number, names in enumerate(LAYERS) if name in names)
    return number


def graph() -> dict[str, set[str]]:
    """For each module the modules that it imports."""
    known = modules()
    return {name: set(imports(path, known)) - {name} for name, path in known.items()}


def test_every_folder_has_a_layer() -> None:
    folders = {folder(module) for module in modules()}
    assert folders == {name for names in LAYERS for name in names} | ABOVE_ALL


def test_imports_go_down() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph().items()
        for target in targets
        if folder(module) != folder(target) and layer(folder(module)) <= layer(folder(target))
        and target != PACKAGE  # the version, and the public names
    ]  # fmt: skip
    assert not wrong


def test_no_module_imports_itself_through_others() -> None:
    # The package itself only names others, and imports them when they are asked for.
    within = {name: targets - {PACKAGE} for name, targets in graph().items() if name != PACKAGE}
    try:
        TopologicalSorter(within).prepare()
    except CycleError as error:
        pytest.fail(f"circular import: {' -> '.join(error.args[1])}")


def test_a_method_is_imported_by_no_one_but_its_own_folder() -> None:
    methods = {path.name for path in (ROOT / "models").iterdir() if (path / "lightning_model.py").is_file()}
    assert len(methods) == 6
    wrong = []
    for module, targets in graph().items():
        for target in targets if module != PACKAGE else ():
            parts = target.split(".")
            is_method = parts[1:2] == ["models"] and len(parts) > 2 and parts[2] in methods
            if is_method and module.split(".")[1:3] != parts[1:3]:
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_no_class_of_a_method_is_named_outside_its_folder() -> None:
    classes = {"HtpGan", "Sidn", "OneStage", "IsuGan", "DefectGan"}  # CutPaste is also a generator's name
    wrong = []
    for module, path in modules().items():
        if module == PACKAGE or (module.startswith(f"{PACKAGE}.models.") and ".components" not in module):
            continue
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        texts = {
            word.strip("`'\".,:;()")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            for word in node.value.split()
        }
        wrong += [f"{module} names {name}" for name in sorted(classes & (names | texts))]
    assert not wrong


@pytest.mark.parametrize("module", sorted(name for name in modules() if folder(name) == "core"))
def test_core_is_light(module: str) -> None:
    allowed = {"torch"} if module.endswith((".defect_generator", ".rng")) else set()
    code = f"import sys, {module}; print(*sorted({set(HEAVY)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= allowed


def test_errors_need_the_standard_library_only() -> None:
    path = ROOT / "core/errors.py"
    tree = ast.parse(path.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in names if name} <= set(sys.stdlib_module_names)


def test_imports_are_absolute() -> None:
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"relative import in {path}"
