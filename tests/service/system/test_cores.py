"""How many cores are ours: affinity and the quotas of all control groups above us, never the host's count."""

import os
from pathlib import Path

import pytest

from service.system import control_groups
from service.system.cores import available_cores


@pytest.fixture(autouse=True)
def host_of_eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight cores that the process may run on, and control groups that the test writes."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path)
    monkeypatch.setattr(control_groups, "_OWN", tmp_path / "own")


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
    write_v1(tmp_path / "cpu", quota)
    assert available_cores() == expected


def write_v1(group: Path, quota: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.cfs_quota_us").write_text(quota)
    (group / "cpu.cfs_period_us").write_text("100000")


def test_the_smallest_quota_of_the_own_group_and_those_above_counts(tmp_path: Path) -> None:
    """A systemd unit with CPUQuota=300% in a slice with 500%: its group is not the root of the mount."""
    (tmp_path / "own").write_text("0::/app.slice/resnet.service\n")
    unit = tmp_path / "app.slice" / "resnet.service"
    unit.mkdir(parents=True)
    (unit / "cpu.max").write_text("300000 100000\n")
    (unit.parent / "cpu.max").write_text("500000 100000\n")
    assert available_cores() == 3
    (unit.parent / "cpu.max").write_text("200000 100000\n")
    assert available_cores() == 2


def test_the_older_kind_below_its_root_counts_too(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("3:cpuset:/\n2:cpu,cpuacct:/jobs/7\n0::/\n")
    write_v1(tmp_path / "cpu" / "jobs" / "7", "400000")
    write_v1(tmp_path / "cpu" / "jobs", "-1")
    assert available_cores() == 4


def test_a_group_that_the_mount_does_not_show_leaves_the_roots_limit(tmp_path: Path) -> None:
    """Docker with the host's cgroup namespace: the path is the host's, the mount begins at the container's group."""
    (tmp_path / "own").write_text("0::/system.slice/docker-0123.scope\n")
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert available_cores() == 2


def test_without_control_groups_the_affinity_counts() -> None:
    assert available_cores() == 8


def test_a_system_without_affinity_counts_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
