"""The peers' own virtual environment: made by the benchmark itself, with exact versions, outside the checkout."""

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.serving.progress import log

_REQUIREMENTS = Path(__file__).parents[1] / "peers" / "requirements.txt"


def peers_python(folder: Path) -> Path:
    """Return the Python that has the peers, after installing them unless exactly these are there already.

    Exits with one line if that fails.
    """
    python, stamp = folder / "bin" / "python", folder / "installed"
    requested = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    if not (python.exists() and stamp.exists() and stamp.read_text() == requested):
        log(f"installing the peers into {folder}; about two minutes")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(_REQUIREMENTS)]
        installed = subprocess.run(pip, capture_output=True, text=True, check=False)
        if installed.returncode != 0:
            sys.exit(f"bench-serving: the peers could not be installed: {installed.stderr.strip().splitlines()[-1]}")
        stamp.write_text(requested)
    return python
