"""`python -m tests.reliability` runs all of it, and writes `build/reliability/summary.md`; `make reliability` calls it.

The soak takes half an hour, or HOURS; the rest takes about half an hour on two idle cores.
"""

import os
import sys

from tests.reliability import bombs, chaos, mutated_images, mutated_requests, soak
from tests.reliability.report import FOLDER, finish


def main() -> int:
    """Run everything, also after a broken promise, and return 1 if any was broken."""
    statuses = [
        finish(mutated_images.run(mutated_images.COUNT)),
        finish(mutated_requests.run(mutated_requests.COUNT)),
        finish(bombs.run()),
        finish(chaos.run()),
        finish(soak.run(float(os.environ.get("HOURS", soak.DEFAULT_HOURS)))),
    ]
    sys.stdout.write(f"the summary is in {FOLDER / 'summary.md'}\n")
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
