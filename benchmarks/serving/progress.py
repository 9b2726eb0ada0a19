"""What the benchmark tells whoever waits for it."""

import datetime
import sys


def say(text: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"{datetime.datetime.now():%H:%M:%S}  {text}\n")
    sys.stderr.flush()
