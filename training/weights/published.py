"""Published ImageNet weights: address, preprocessing, and the accuracy that their publishers state.

Nothing here was measured by this project. Each row names its source; digests are exactly what the publisher states:
torchvision and timm put the first 8 hex digits of the sha256 into a file's name (the convention of torch.hub's
`check_hash`; timm's clean_checkpoint.py names files so). All of them have shortcuts B, a bottleneck's stride in its
3x3 (v1.5), and 224 x 224 pixels in the usual colours of ImageNet.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from service.system.cache import cache_root
from training.weights.download import DownloadError, download

MIRROR = "RESNET_WEIGHTS_MIRROR"  # environment: a folder of a web server that has the same files
CROP = 224
_LARGEST = 400_000_000  # bytes; ResNet-152 has 242 million

_TORCHVISION = "https://download.pytorch.org/models"
_TORCHVISION_SAYS = "torchvision 0.29.1, models/resnet.py"
_TIMM = "https://github.com/{}/pytorch-image-models/releases/download/v0.1-rsb-weights"
_TIMM_SAYS = "timm 1.0.31, models/resnet.py; its results/results-imagenet.csv of 30 October 2025, 224 pixels"


class PublishedError(Exception):
    """Published weights cannot be had. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class Published:
    """One published file, the preprocessing it was evaluated with, and its publisher's claims."""

    name: str  # as --pretrained takes it: torchvision-v2
    depth: int
    url: str
    digest: str  # the hex digits of the sha256 that the publisher states: the first 8, or all 64
    licence: str  # SPDX; of the weights, as far as their publisher says
    shorter_side: int  # pixels, after the resize
    interpolation: str
    top1: float  # share of ImageNet's 50,000 validation images, as published
    top5: float
    said_by: str  # where URL, digest, preprocessing and accuracy are written

    @property
    def network(self) -> str:
        return f"resnet{self.depth}"

    @property
    def file_name(self) -> str:
        return urlsplit(self.url).path.rsplit("/", 1)[-1]


def _from_torchvision(version: int, depth: int, digest: str, top1: float, top5: float) -> Published:
    return Published(
        name=f"torchvision-v{version}",
        depth=depth,
        url=f"{_TORCHVISION}/resnet{depth}-{digest}.pth",
        digest=digest,
        licence="BSD-3-Clause",
        shorter_side=256 if version == 1 else 232,
        interpolation="bilinear",
        top1=top1,
        top5=top5,
        said_by=_TORCHVISION_SAYS,
    )


def _from_timm(recipe: str, depth: int, digest: str, top1: float, top5: float, owner: str = "huggingface") -> Published:
    """Return a file of *ResNet strikes back* (Wightman et al., 2021), whose recipes are A1, A2 and A3."""
    return Published(
        name=f"timm-{recipe}",
        depth=depth,
        url=f"{_TIMM.format(owner)}/resnet{depth}_{recipe}_0-{digest}.pth",
        digest=digest,
        licence="Apache-2.0",
        shorter_side=235,  # 224 / 0.95, rounded down
        interpolation="bicubic",
        top1=top1,
        top5=top5,
        said_by=_TIMM_SAYS,
    )


# In the order of preference: the first of a depth is its default.
PUBLISHED = (
    _from_torchvision(2, 50, "11ad3fa6", 0.80858, 0.95434),
    _from_torchvision(2, 101, "cd907fc2", 0.81886, 0.95780),
    _from_torchvision(2, 152, "f82ba261", 0.82284, 0.96002),
    _from_torchvision(1, 18, "f37072fd", 0.69758, 0.89078),
    _from_torchvision(1, 34, "b627a593", 0.73314, 0.91420),
    _from_torchvision(1, 50, "0676ba61", 0.76130, 0.92862),
    _from_torchvision(1, 101, "63fe2227", 0.77374, 0.93546),
    _from_torchvision(1, 152, "394f9c45", 0.78312, 0.94046),
    _from_timm("a1", 18, "d63eafa0", 0.71504, 0.90086),
    _from_timm("a1", 34, "46f8f793", 0.76420, 0.92896),
    _from_timm("a1", 50, "14fe96d1", 0.80382, 0.94598, owner="rwightman"),
    _from_timm("a1", 101, "cdcb52a9", 0.81494, 0.95164),
    _from_timm("a1", 152, "2eee8a7a", 0.81998, 0.95294),
    _from_timm("a2", 18, "b61bd467", 0.70634, 0.89486),
    _from_timm("a2", 34, "82d47d71", 0.75520, 0.92454),
    _from_timm("a2", 50, "a2746f79", 0.79828, 0.94560),
    _from_timm("a2", 101, "6edb36c7", 0.81344, 0.95198),
    _from_timm("a2", 152, "b4c6978f", 0.81764, 0.95270),
    _from_timm("a3", 18, "40c531c8", 0.68250, 0.88172),
    _from_timm("a3", 34, "a20cabb6", 0.72996, 0.91116),
    _from_timm("a3", 50, "59cae1ef", 0.78052, 0.93780),
    _from_timm("a3", 101, "1db14157", 0.79836, 0.94608),
    _from_timm("a3", 152, "134d4688", 0.80548, 0.95004),
)


def find_published(depth: int, name: str | None = None) -> Published:
    """Return the published weights of a depth by name, or the depth's default. Raises PublishedError."""
    of_depth = [row for row in PUBLISHED if row.depth == depth]
    if not of_depth:
        depths = ", ".join(str(known) for known in sorted({row.depth for row in PUBLISHED}))
        raise PublishedError(f"there are no published weights for {depth} layers; there are for {depths}")
    for row in of_depth:
        if name in (None, row.name):
            return row
    names = ", ".join(row.name for row in of_depth)
    raise PublishedError(f"no weights for {depth} layers are published as {name!r}; choose one of {names}")


def published_as(sha256: str, depth: int) -> Published | None:
    """Return what a file with this digest was published as, or None if it is not in the table."""
    return next((row for row in PUBLISHED if row.depth == depth and sha256.startswith(row.digest)), None)


def cached_path(published: Published) -> Path:
    """Return the path of the file in the cache, also for one that is fetched by other means."""
    return cache_root() / "weights" / published.file_name


def fetch_published(published: Published, log: Callable[[str], None]) -> Path:
    """Return the file, verified, from the cache or else from its publisher. Raises PublishedError."""
    path = cached_path(published)
    mirror = os.environ.get(MIRROR)
    url = f"{mirror.rstrip('/')}/{published.file_name}" if mirror else published.url
    try:
        download(url, path, digest=published.digest, largest=_LARGEST, log=log)
    except DownloadError as error:
        raise PublishedError(f"{error}; fetch it elsewhere and put it at {path}") from None
    return path
