"""Shows the demo: ``python demo/app.py [--results DIR]``, and what a Space runs."""  # noqa: INP001

import argparse
import sys

from anomalib_defect_plugins.console import install_excepthook
from anomalib_defect_plugins.demo.commands_demo import add_options, run

if __name__ == "__main__":
    install_excepthook()
    parser = argparse.ArgumentParser(description="Surface defects: results, and models to try, in the browser.")
    add_options(parser)
    sys.exit(run(parser.parse_args()))
