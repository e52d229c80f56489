"""Third-party plugin packages for tests, written as pip installs them, without pip."""

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


class PluginPackages:
    """A folder of installed distributions, and processes that can import them.

    Args:
        site: Folder for the distributions, on the import path of the processes.
    """

    def __init__(self, site: Path) -> None:
        self.site = site
        self.work = site.parent / "work"
        self.work.mkdir(exist_ok=True)

    def install(self, name: str, source: str, version: str = "1.0", module: str | None = None) -> EntryPoint:
        """Install a distribution with one module and one plugin of the same name.

        Args:
            name: Name of the distribution and its plugin.
            source: Source of the module, possibly indented.
            version: Version of the distribution.
            module: Name of the module; defaults to the name with underscores.

        Returns:
            Entry point of the plugin.
        """
        module = module or name.replace("-", "_")
        (self.site / f"{module}.py").write_text(textwrap.dedent(source))
        info = self.site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[anomalib_defect_plugins]\n{name} = {module}\n")
        return next(iter(PathDistribution(info).entry_points))

    def python(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in a process that can import the distributions."""
        return self.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], **variables)

    def command(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command that is installed next to Python."""
        return self.run([str(Path(sys.executable).with_name(name)), *arguments], **variables)

    def run(self, command: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder ``work``, without environment variables of this package except ``variables``."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ANOMALIB_DEFECT_PLUGINS_")}
        own = {"PYTHONPATH": str(self.site), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        return subprocess.run(
            command,
            cwd=self.work,
            env=inherited | own | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
