"""How many cores are ours: affinity and the container's quota, never the host's count."""

import os
from pathlib import Path

import pytest

from service import cores
from service.cores import available_cores


@pytest.fixture(autouse=True)
def host_of_eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight cores that the process may run on, and control groups that the test writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_CGROUP_V2", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "_CGROUP_V1", tmp_path)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", 8),
        ("", 8),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert available_cores() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3)])
def test_the_older_kind_of_control_group_counts_too(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    assert available_cores() == expected


def test_without_control_groups_the_affinity_counts() -> None:
    assert available_cores() == 8
