"""`resnet-mcp` where the package `mcp` is missing."""

import subprocess
import sys

from tests.support.servers.served import ROOT


def test_without_the_package_the_command_names_what_to_install() -> None:
    script = "import sys; sys.modules['mcp'] = None; from resnet_service.mcp_command import main; main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "resnet-mcp: the package mcp is missing; install it with pip install 'resnet-service[mcp]'\n"
