"""Training on two nodes by torchrun: one is killed like a machine that loses power, and the run goes on bit-equal.

The nodes are network namespaces, joined by a virtual cable, where the system lets us make them; else two agents with
ranks of their own on the loopback address.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.deploy.test_chart import strictly
from tests.support.kubernetes_tools import ROOT
from tests.training.conftest import write_images
from tests.training.test_stopping import assert_equal, latest

FILES = ROOT / "deploy" / "training"
KILLED_AT = 12  # of 20 steps

WORKER = """
import os, signal, sys
from pathlib import Path
from tests.training.hardware.test_process_group import RECIPES
from training.hardware.devices import choose
from training.hardware.process_group import join
from training.runs.options import Options
from training.runs.progress import Progress
from training.runs.run import run

class LosesPower(Progress):
    def show(self, step, *rest):
        if step >= int(os.environ.get("KILLED_AT", "1000")):
            os.kill(os.getppid(), signal.SIGKILL)  # the agent of the node first
            os.kill(os.getpid(), signal.SIGKILL)

world = join()
assert world.size == 2 and world.local_size == 1
options = Options(
    out=Path(sys.argv[2]), data=Path(sys.argv[1]), reading="packed", resume="--resume" in sys.argv,
    checkpoint_every_minutes=0,
)
run(RECIPES["packed"], options, choose("fp32", "off", 1), LosesPower(is_quiet=True), world)
world.leave()
"""


@dataclass(frozen=True)
class Node:
    """A place for an agent: the words before its command, its address, and its network interface."""

    enter: tuple[str, ...]
    address: str
    interface: str


@contextlib.contextmanager
def two_nodes() -> Iterator[list[Node]]:
    """Two namespaces, or twice this one where none can be made."""
    names = [f"resnet-{os.getpid()}-{number}" for number in range(2)]
    with contextlib.ExitStack() as stack:
        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
        except (OSError, subprocess.CalledProcessError):
            yield [Node((), "127.0.0.1", "lo")] * 2
            return
        cable = [f"rn{os.getpid() % 100_000}{end}" for end in "ab"]
        ip("link", "add", cable[0], "netns", names[0], "type", "veth", "peer", "name", cable[1], "netns", names[1])
        nodes = []
        for number, (name, interface) in enumerate(zip(names, cable, strict=True), start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", interface)
            ip("-n", name, "link", "set", interface, "up")
            ip("-n", name, "link", "set", "lo", "up")
            nodes.append(Node(("ip", "netns", "exec", name), f"10.77.0.{number}", interface))
        yield nodes


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def start(node: Node, rank: int, first: Node, port: int, words: list[str], **variables: str) -> "subprocess.Popen[str]":
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{first.address}:{port}", "--rdzv-id", "test"]
    # In a namespace the name of the machine does not lead to its address, so the host of the meeting is named.
    meeting += ["--rdzv-conf", f"is_host={'true' if rank == 0 else 'false'},read_timeout=300"]
    place = ["--node-rank", str(rank), "--local-addr", node.address, "--max-restarts", "0"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": node.interface}
    return subprocess.Popen(
        [*node.enter, *torchrun, *meeting, *place, *words],
        env=os.environ | environment | variables,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def run_both(nodes: list[Node], words: list[str]) -> None:
    """Run the command on both nodes to its good end."""
    port = free_port()
    agents = [start(node, rank, nodes[0], port, words) for rank, node in enumerate(nodes)]
    for agent in agents:
        _, errors = agent.communicate(timeout=600)
        assert agent.returncode == 0, errors[-3000:]


def lose_the_second(nodes: list[Node], words: list[str]) -> None:
    """Run the command until the second node is killed; the first one then has to give up."""
    port = free_port()
    first = start(nodes[0], 0, nodes[0], port, words)
    second = start(nodes[1], 1, nodes[0], port, words, KILLED_AT=str(KILLED_AT))
    second.communicate(timeout=600)
    assert second.returncode == -signal.SIGKILL
    first.communicate(timeout=600)
    assert first.returncode not in (0, None)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_run_whose_second_node_is_killed_goes_on_bit_equal(tmp_path: Path) -> None:
    images = write_images(tmp_path / "colours", each=45)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with two_nodes() as nodes:
        run_both(nodes, [str(script), str(images), str(tmp_path / "whole")])
        killed = [str(script), str(images), str(tmp_path / "killed")]
        lose_the_second(nodes, killed)
        assert 0 < latest(tmp_path / "killed").step < 20
        run_both(nodes, [*killed, "--resume"])
    whole, again = latest(tmp_path / "whole"), latest(tmp_path / "killed")
    assert whole.step == again.step == 20
    assert_equal(whole.weights, again.weights)
    assert_equal(whole.state, again.state)
    facts = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert facts["hardware"]["processes"] == 2


def test_the_train_job_fits_the_models_of_the_published_package() -> None:
    text = (FILES / "trainjob.yaml").read_text()
    assert strictly(text) == ["1 objects"]
    assert strictly(text.replace("numProcPerNode", "processes"))[0].startswith("TrainJob")


def test_slurm_reads_two_nodes_and_a_signal_before_the_end_from_the_file() -> None:
    text = (FILES / "train.sbatch").read_text()
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert text.startswith("#!/bin/sh\n#")
    assert directives["nodes"] == "2"
    assert directives["ntasks-per-node"] == "1"  # one torchrun a node
    assert directives["signal"] == "TERM@300"
    assert "requeue" in directives


@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize("name", ["train.sbatch", "trainjob.yaml"])
def test_a_job_starts_a_run_and_goes_on_with_one_that_exists(name: str, has_run: bool, tmp_path: Path) -> None:
    """The shell of both files, with programs of the same names that print their arguments."""
    out = tmp_path / "runs"
    out.mkdir()
    if has_run:
        (out / "run.json").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    for program, line in {"scontrol": "echo node1", "srun": 'shift; exec "$@"', "torchrun": 'echo "$@"'}.items():
        (programs / program).write_text(f"#!/bin/sh\n{line}\n")
        (programs / program).chmod(0o755)
    script = (FILES / name).read_text()
    if name.endswith(".yaml"):
        (script,) = yaml.safe_load(script)["spec"]["trainer"]["args"]
        script = script.replace("/runs/resnet50", str(out))
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7", "OUT": str(out)}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shutil.which("sh") or "sh", "-c", script],
        env=slurm | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert ("--resume" in words) == has_run
    options = training_options(words)
    assert options["--out"] == str(out)
    if name == "train.sbatch":
        assert {"--nnodes=2", "--rdzv-endpoint=node1:29400", "--rdzv-id=7"} <= set(words)


def training_options(words: list[str]) -> dict[str, str]:
    """The options behind `training run`, each of which the command has to know, with a recipe that there is."""
    from training.recipes.catalog import RECIPES

    at = words.index("training")
    assert words[at + 1] == "run"
    given = [word for word in words[at + 2 :] if word != "--resume"]
    options = dict(zip(given[::2], given[1::2], strict=True))
    assert options["--recipe"] in RECIPES
    done = subprocess.run(
        [sys.executable, "-m", "training", "run", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(option in done.stdout for option in (*options, "--resume"))
    return options
