"""The table of published weights repeats its publishers, and its files come from them, a mirror or the cache."""

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest

from service.images.preprocessing import INTERPOLATIONS
from tests.support.servers.file_server import serving
from training.weights import published as published_weights
from training.weights.published import (
    MIRROR,
    PUBLISHED,
    Published,
    PublishedError,
    cached_path,
    fetch_published,
    find_published,
)

CONTENT = b"weights of a network"


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(MIRROR, raising=False)


def fake(url: str) -> Published:
    digest = hashlib.sha256(CONTENT).hexdigest()[:8]
    return dataclasses.replace(find_published(18), url=f"{url}/fake-{digest}.pth", digest=digest)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.name}-{row.depth}")
def test_every_row_is_whole(row: Published) -> None:
    assert row.url.startswith("https://")
    assert re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", row.digest)
    assert row.file_name.startswith(f"resnet{row.depth}") and row.digest in row.file_name
    assert row.interpolation in INTERPOLATIONS and row.shorter_side >= published_weights.CROP
    assert 0.6 < row.top1 < row.top5 < 1
    assert row.licence in ("BSD-3-Clause", "Apache-2.0") and row.said_by


def test_names_are_unique_for_each_depth() -> None:
    assert len({(row.name, row.depth) for row in PUBLISHED}) == len(PUBLISHED)
    assert len({row.url for row in PUBLISHED}) == len({row.digest for row in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize(
    ("depth", "name"),
    [(18, "torchvision-v1"), (34, "torchvision-v1"), (50, "torchvision-v2"), (152, "torchvision-v2")],
)
def test_each_depth_has_its_default(depth: int, name: str) -> None:
    assert find_published(depth).name == name
    assert find_published(depth, name) == find_published(depth)


def test_what_is_not_published_is_refused_with_what_there_is() -> None:
    with pytest.raises(PublishedError, match=r"'torchvision-v2'; choose one of torchvision-v1, timm-a1, timm-a2"):
        find_published(18, "torchvision-v2")
    with pytest.raises(PublishedError, match="for 20 layers; there are for 18, 34, 50, 101, 152"):
        find_published(20)


def test_a_published_file_comes_into_the_cache_and_is_taken_from_there(tmp_path: Path) -> None:
    with serving(CONTENT) as server:
        row = fake(server.url)
        path = fetch_published(row, lambda _line: None)
    assert path == cached_path(row) == tmp_path / "cache" / "resnet-service" / "weights" / row.file_name
    assert fetch_published(row, lambda _line: None).read_bytes() == CONTENT  # nobody serves it any more


def test_a_mirror_is_used_instead_of_the_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(CONTENT) as server:
        monkeypatch.setenv(MIRROR, f"{server.url}/folder/")
        row = fake("https://publisher.invalid/models")
        assert fetch_published(row, lambda _line: None).read_bytes() == CONTENT


def test_offline_one_line_says_which_file_to_put_where() -> None:
    with serving(CONTENT) as server:
        row = fake(server.url)
    with pytest.raises(PublishedError) as refusal:
        fetch_published(row, lambda _line: None)
    assert str(refusal.value) == (
        f"cannot fetch {row.url}: no connection; fetch it elsewhere and put it at {cached_path(row)}"
    )
