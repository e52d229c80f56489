"""Third-party distributions for tests: written as pip would leave them, without pip."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path

GOOD = """
    from anomalib import LearningType
    from anomalib.data import Folder
    from anomalib.models import AnomalibModule

    from anomalib_defect_plugins.core.errors import InvalidInputError
    from anomalib_defect_plugins.plugins import hookimpl


    class GoodNet(AnomalibModule):
        def __init__(self, width: int = 8) -> None:
            super().__init__(visualizer=False)
            if width < 1:
                msg = f"width is {width}; it must be 1 or more"
                raise InvalidInputError(msg)
            self.width = width

        @property
        def trainer_arguments(self):
            return {}

        @property
        def learning_type(self):
            return LearningType.ONE_CLASS


    class GoodData(Folder):
        def __init__(self, root: str = "nowhere") -> None:
            if root == "":
                msg = "root is empty; name a folder"
                raise InvalidInputError(msg)
            super().__init__(name="good", root=root, normal_dir="normal")


    @hookimpl
    def register_models(register):
        register(GoodNet)


    @hookimpl
    def register_datamodules(register):
        register(GoodData)
"""

MODEL = """
    from anomalib import LearningType
    from anomalib.models import AnomalibModule

    from anomalib_defect_plugins.plugins import hookimpl


    class {name}(AnomalibModule):
        trainer_arguments = {{}}
        learning_type = LearningType.ONE_CLASS


    @hookimpl
    def register_models(register):
        register({name})
"""


class Strangers:
    """A folder of installed distributions, and processes that see them."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self.work = site.parent / "work"
        self.work.mkdir(exist_ok=True)

    def install(self, name: str, source: str, version: str = "1.0", module: str | None = None) -> EntryPoint:
        """Install a distribution of one module, whose plugin is called as the distribution is."""
        module = module or name.replace("-", "_")
        (self.site / f"{module}.py").write_text(textwrap.dedent(source))
        info = self.site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[anomalib_defect_plugins]\n{name} = {module}\n")
        return next(iter(PathDistribution(info).entry_points))

    def python(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program that sees the distributions."""
        return self.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], **variables)

    def command(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run one of the commands that are installed beside Python."""
        return self.run([str(Path(sys.executable).with_name(name)), *arguments], **variables)

    def run(self, command: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder ``work``, empty at first, with none of our variables but those given."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANOMALIB_DEFECT_PLUGINS_")}
        ours = {"PYTHONPATH": str(self.site), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        return subprocess.run(
            command,
            cwd=self.work,
            env=kept | ours | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
