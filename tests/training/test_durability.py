"""Checkpoints under fire: processes killed while they write, and disks that are full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Children write checkpoints as fast as they can, of ever new steps and of one again and again; each is killed (kill -9)
# at a random moment, and what it leaves must hold a whole checkpoint, no older than the last one that was finished.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from training.weights.checkpoint import load_latest, save

run, moments, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)

def write(step):
    weights = {"fc.weight": torch.full((200, 500), float(step))}
    save(run, step, weights, {"momentum": [torch.full((200, 500), float(step))], "count": step})

def child(pipe, step):
    while True:
        os.write(pipe, b"%d\\n" % step)
        write(step)
        step += chance.choice((0, 1))

start = time.perf_counter()
write(1)
seconds, whole, halves = time.perf_counter() - start, 1, 0
for _ in range(moments):
    readable, writable = os.pipe()
    process = os.fork()
    if process == 0:
        child(writable, whole + 1)
    os.close(writable)
    with os.fdopen(readable) as lines:
        begun = int(lines.readline())
        time.sleep(chance.uniform(0, 3 * seconds))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        begun = int((lines.read().split() or [begun])[-1])
    halves += any(path.name.startswith(".") for path in (run / "checkpoints").iterdir())
    found = load_latest(run)
    assert found.step == found.state["count"] and begun - 1 <= found.step <= begun, (begun, found.step)
    assert (found.weights["fc.weight"] == found.step).all() and (found.state["momentum"][0] == found.step).all()
    whole = found.step
print(json.dumps({"checkpoints": whole, "halves": halves}))
"""


def kill_writers(run: Path, moments: int, seed: int) -> dict[str, int]:
    command = [sys.executable, "-c", KILLER, str(run), str(moments), str(seed)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def test_writers_killed_at_random_moments_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    kill_writers(tmp_path, moments=5, seed=0)


@pytest.mark.long
def test_writers_killed_at_fifty_random_moments_leave_a_whole_checkpoint(tmp_path: Path) -> None:
    counts = kill_writers(tmp_path, moments=50, seed=1)
    assert counts["halves"] >= 10  # these moments were inside of writing, not between two checkpoints


FILLER = """
import sys
from pathlib import Path
import torch
from training.weights.checkpoint import CheckpointError, load_latest, save

run, limit = Path(sys.argv[1]), sys.argv[2]
def state(step, size): return {"momentum": torch.full((size,), float(step)), "count": step}
save(run, 1, {"fc.weight": torch.ones(10)}, state(1, 10))
if limit == "files":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    save(run, 2, {"fc.weight": torch.ones(10)}, state(2, 1_000_000))
except CheckpointError as error:
    print(error)
found = load_latest(run)
assert found.step == 1 and (found.state["momentum"] == 1).all()
assert not list((run / "checkpoints").glob(".*"))
save(run, 3, {"fc.weight": torch.ones(10)}, state(3, 10))
"""


def fill(run: Path, limit: str) -> str:
    command = [sys.executable, "-c", FILLER, str(run), limit]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_that_may_not_grow_leaves_the_earlier_checkpoint_and_says_why(tmp_path: Path) -> None:
    said = fill(tmp_path, "files")
    assert "cannot write the checkpoint of step 2" in said
    assert "File too large; the earlier ones are untouched: make room, then run again with --resume" in said


def test_a_disk_that_is_really_full_leaves_the_earlier_checkpoint_and_says_so(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk to fill can be mounted by root only")
    try:
        said = fill(disk / "run", "disk")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "No space left on device; the earlier ones are untouched: make room, then run again with --resume" in said
