"""What pyproject.toml cannot say: the commit, the default model and the SBOM (PEP 770) in the package, and
reproducible archives.

SOURCE_DATE_EPOCH is the time of every file in the archives; `make dist` sets it to the time of the commit.
"""

import gzip
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
COMMIT_FILE = Path("service", "commit.txt")
# 11 MB of a wheel, for which a package index allows 100 MB. Images have their models outside the package.
DEFAULT_MODEL = Path("models", "everyday-resnet18-int8", "1", "model.onnx")
SBOM = Path("release", "resnet-service.cdx.json")


def commit() -> str:
    """Return the commit that is built: SOURCE_COMMIT, that of the unpacked sdist, or that of the checkout; else ""."""
    if found := os.environ.get("SOURCE_COMMIT"):
        return found
    if (ROOT / COMMIT_FILE).is_file():
        return (ROOT / COMMIT_FILE).read_text().strip()
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return ""
    done = subprocess.run([git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()


def write_commit(folder: Path) -> None:
    if found := commit():
        target = folder / COMMIT_FILE
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{found}\n")


class BuildWithCommit(build_py):
    """Adds service/commit.txt to the built package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            write_commit(Path(self.build_lib))


class WheelWithSbom(bdist_wheel):
    """Adds the SBOM to the metadata of the wheel."""

    def egg2dist(self, egginfo_path: str, distinfo_path: str) -> None:
        super().egg2dist(egginfo_path, distinfo_path)
        if (ROOT / SBOM).is_file():
            sboms = Path(distinfo_path, "sboms")
            sboms.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / SBOM, sboms / SBOM.name)


class ReproducibleSdist(sdist):
    """Writes a tar file whose bytes depend on the names, contents and SOURCE_DATE_EPOCH only."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir))

    def make_archive(
        self,
        base_name: str,
        format: str,
        root_dir: object = None,
        base_dir: str | None = None,
        *_: object,
        **__: object,
    ) -> str:
        folder, name = Path(base_dir or "."), f"{base_name}.tar.gz"
        moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
        with (
            open(name, "wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=moment) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                member = archive.gettarinfo(str(path))
                member.mtime, member.uid, member.gid, member.uname, member.gname = moment, 0, 0, "", ""
                member.mode = 0o755 if member.mode & 0o100 else 0o644
                with path.open("rb") as content:
                    archive.addfile(member, content)
        return name


setup(
    cmdclass={"build_py": BuildWithCommit, "bdist_wheel": WheelWithSbom, "sdist": ReproducibleSdist},
    data_files=[(str(Path("share", "resnet-service", DEFAULT_MODEL.parent)), [str(DEFAULT_MODEL)])]
    if (ROOT / DEFAULT_MODEL).is_file()
    else [],
)
