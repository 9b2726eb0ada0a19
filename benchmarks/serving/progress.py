"""Progress of a benchmark on standard error."""

import datetime
import sys


def log(text: str) -> None:
    """Print one line."""
    sys.stderr.write(f"{datetime.datetime.now():%H:%M:%S}  {text}\n")
    sys.stderr.flush()
