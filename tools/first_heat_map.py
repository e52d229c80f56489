"""Measure the time from a started demo without results to the first heat map that a new visitor sees. Limit: 5 s.

    python tools/first_heat_map.py --repeats 3

Each repetition starts a server with an empty folder; the time begins when it prints its address. Needs chromium and
playwright, and a machine without other load.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))

from demo_server import launch_browser, open_page, serve_demo

LIMIT_S = 5.0

SHOWS_HEAT_MAP = """() => {
    const map = document.querySelector("#inspect-layers .anomaly-map");
    return map && map.offsetParent && map.naturalWidth > 1;
}"""


def main() -> int:
    """Print the times; the exit status is 1 if any is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    seconds = []
    with launch_browser() as browser:
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as folder, serve_demo(Path(folder, "results")) as url:
                start = time.perf_counter()
                with open_page(browser, url) as (page, _):
                    page.wait_for_function(SHOWS_HEAT_MAP)
                    seconds.append(time.perf_counter() - start)
            load = os.getloadavg()[0]
            sys.stdout.write(f"{seconds[-1]:.2f} s to the first heat map, load {load:.1f}, {os.cpu_count()} cores\n")
    return int(max(seconds) > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
