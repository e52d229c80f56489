"""Commands, examples and links in the documentation are valid.

Commands are parsed by their programs but not run. Python examples run; examples that need a checkpoint or graph file
only run their imports. ``test_python_page.py`` runs those of ``docs/python.md``.
"""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from anomalib.cli.cli import AnomalibCLI

from anomalib_defect_plugins.cli import command, datamodules
from anomalib_defect_plugins.plugins import Kind, loaded_plugins
from anomalib_defect_plugins.plugins.manager import is_own

ROOT = Path(__file__).parents[2]
FOLDERS = ("", "docs/", "demo/", "anomalib_defect_plugins/models/*/", "experiments/*/")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(f"{folder}*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    ((?:[A-Z_]+=\S+ )?(?:python|anomalib) .*)$", re.MULTILINE)
INLINE = re.compile(r"`(python (?:experiments|tools)/[^`]+)`")
CELL = re.compile(r"^\|.*?`(anomalib(?:-defects)? [\w-]+ [^`]+)`", re.MULTILINE)
OPENING = re.MULTILINE | re.DOTALL
VARIABLE = re.compile(r"[A-Z_]+=.*")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield the page and text of every code block of a language."""
    for page in PAGES:
        for block, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if block == language:
                yield _name(page), text


def _lines() -> Iterator[tuple[str, str]]:
    """Yield the page and text of every command line."""
    yield from _blocks("sh")
    for page in PAGES:
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        for line in (*INDENTED.findall(prose), *INLINE.findall(prose), *CELL.findall(prose)):
            yield _name(page), " ".join(line.split())


def _commands() -> list[tuple[str, ...]]:
    """Return the words of each distinct command, without variables and the folder of the virtual environment."""
    commands: dict[tuple[str, ...], str] = {}
    for page, text in _lines():
        for line in text.replace("\\\n", " ").replace("&&", "\n").splitlines():
            words = shlex.split(line, comments=True)
            while words and VARIABLE.fullmatch(words[0]):
                words = words[1:]
            if words and "my_method" not in words:  # test_new_package.py runs these
                commands.setdefault((words[0].removeprefix(".venv/bin/"), *words[1:]), page)
    return [pytest.param(words, id=f"{page}: {' '.join(words)}") for words, page in commands.items()]


def _parameters(language: str, without: str = "") -> list[str]:
    blocks = ((page, text) for page, text in _blocks(language) if page != without)
    return [pytest.param(text, id=f"{page}: {text.splitlines()[0]}") for page, text in blocks]


class Parser(AnomalibCLI):
    """anomalib's command line, parsing only; built once, since that takes seconds."""

    def __init__(self) -> None:
        self.parser = self.init_parser()
        self.subcommand_parsers = {}
        self.subcommand_method_arguments = {}
        self.add_subcommands()


@pytest.fixture(scope="module")
def anomalib() -> Parser:
    """The parser of ``anomalib``."""
    return Parser()


@pytest.mark.parametrize("words", _commands())
def test_a_command_is_valid(
    words: tuple[str, ...],
    anomalib: Parser,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    assert not _status(words, anomalib), capsys.readouterr().err


def _status(words: tuple[str, ...], anomalib: Parser) -> int | str | None:
    """Return the exit status after parsing the arguments: 0 after help, 2 if they are invalid."""
    program, *arguments = words
    try:
        if program == "anomalib":
            anomalib.parser.parse_args(arguments)
        elif program == "anomalib-defects":
            _check_own(arguments)
        else:
            _check_other(program, arguments)
    except SystemExit as ended:
        return ended.code
    return 0


def _check_own(arguments: list[str]) -> None:
    options = command.parse_arguments(arguments)
    if options.command in {"data", "synthesize", "export"}:
        cls = datamodules.find_datamodule(options.name if options.command == "data" else options.data)
        datamodules.make_datamodule(cls, options.rest)
    elif options.command == "benchmark":
        assert Path(options.config).is_file()  # test_configuration.py reads it


def _check_other(program: str, arguments: list[str]) -> None:
    if program == "python" and arguments[0] != "-m":
        source = Path(arguments[0]).read_text(encoding="utf-8")
        compile(source, arguments[0], "exec")
        if "from common import" in source:
            source += Path("experiments/common.py").read_text(encoding="utf-8")
        if "options.rest" in source:  # the options of a data module, as of our own commands
            cls = datamodules.find_datamodule(arguments[arguments.index("--data") + 1])
            source += "".join(f'"--data.{name}"' for name in inspect.signature(cls).parameters)
            arguments = [word for word in arguments if not word.startswith("--data.base.")]
        assert not [word for word in arguments if word.startswith("--") and f'"{word}"' not in source]
        assert not [word for word in arguments if word.startswith("configs/") and not Path(word).is_file()]
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif "install" in arguments:
        extras = re.findall(r"anomalib-defect-plugins\[(\w+)\]", arguments[-1])
        project = Path("pyproject.toml").read_text(encoding="utf-8")
        assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)
    else:
        assert find_spec(arguments[1] if program == "python" else program), f"this project does not install {program}"


@pytest.mark.parametrize("text", _parameters("python", without="docs/python.md"))
def test_an_example_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = ast.parse(text)
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    if any(value.endswith((".ckpt", ".xml")) for value in texts):
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(tree, "example", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("text", _parameters("yaml"))
def test_a_configuration_is_valid_yaml(text: str) -> None:
    assert yaml.safe_load(text)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_within_the_project_have_a_target(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parents[1].name != "experiments" and page.parent != ROOT], ids=_name
)
def test_a_page_opens_with_its_use_and_one_command(page: Path) -> None:
    opening = re.search(r"^# .+\n\nUse this when (.*?)\n\n```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), OPENING)
    assert opening
    assert "\n\n" not in opening[1]
    assert len(opening[2].replace("\\\n", "").splitlines()) == 1


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_all_pages_are_linked_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            links = (link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")))
            waiting += [(page.parent / link).resolve() for link in links if link.endswith(".md") and "://" not in link]
    assert set(PAGES) <= seen


def test_the_citation_names_the_version_of_the_project() -> None:
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version


def test_every_model_data_module_and_generator_is_documented() -> None:
    pages = {Kind.MODEL: "README.md", Kind.DATA: "docs/data-sets.md", Kind.GENERATOR: "docs/your-own-data.md"}
    for plugin in filter(is_own, loaded_plugins()):
        for item in plugin.registrations:
            assert f"`{item.name}`" in (ROOT / pages[item.kind]).read_text(encoding="utf-8")


def test_the_navigation_of_the_site_lists_all_pages() -> None:
    lines = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").splitlines()
    listed = {line.rpartition(": ")[2] for line in lines if line.endswith(".md")}
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} <= listed
