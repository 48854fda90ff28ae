"""Limits on memory, from made-up trees of control groups and from real limits on processes of our own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk._internal import cgroups, memory
from torch_cntk._internal.memory import allocating, available_bytes, bytes_text, failed_allocation, require_bytes

GB = 10**9


def machine(
    monkeypatch: pytest.MonkeyPatch, folder: Path, own: str, mounts: str, groups: Mapping[str, Mapping[str, Any]]
) -> None:
    """A process whose /proc/self says this, with files below ``folder``; FOLDER in the mounts stands for that."""
    process = folder / "proc"
    process.mkdir()
    (process / "cgroup").write_text(own)
    (process / "mountinfo").write_text(mounts.replace("FOLDER", str(folder)))
    for place, files in groups.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / place / name).write_text(f"{content}\n")
    monkeypatch.setattr(cgroups, "_PROCESS", process)


V2 = "30 23 0:26 / FOLDER/cg rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "25 23 0:22 / FOLDER/cg rw - tmpfs tmpfs rw\n"
    "31 25 0:27 / FOLDER/cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 25 0:28 / FOLDER/cg/memory rw - cgroup cgroup rw,memory\n"
)


def v2(limit: object, used: int = 0, high: object = "max", cache: int = 0) -> dict[str, Any]:
    return {
        "memory.max": limit,
        "memory.high": high,
        "memory.current": used,
        "memory.stat": f"anon 5\ninactive_file {cache}\nactive_file 7",
    }


def v1(limit: int, used: int = 0, cache: int = 0, above: int = 2**63 - 4096) -> dict[str, Any]:
    return {
        "memory.limit_in_bytes": limit,
        "memory.usage_in_bytes": used,
        "memory.stat": f"cache 3\ntotal_inactive_file {cache}\nhierarchical_memory_limit {min(limit, above)}",
    }


@pytest.mark.parametrize(
    ("own", "mounts", "groups", "free"),
    [
        # The own group, not the root, holds the limit.
        ("0::/job\n", V2, {"cg": {}, "cg/job": v2(4 * GB, GB)}, 3 * GB),
        # A limit two groups above, as systemd's slices and batch systems set it; file cache can be dropped.
        (
            "0::/slice/job/step\n",
            V2,
            {"cg/slice": v2(5 * GB, 4 * GB, cache=GB // 2), "cg/slice/job": v2("max", 3 * GB), "cg/slice/job/step": {}},
            3 * GB // 2,
        ),
        # Several limits: the tightest counts, which is not always the smallest number nor the innermost.
        ("0::/a/b\n", V2, {"cg/a": v2(8 * GB, 7 * GB), "cg/a/b": v2(2 * GB, GB // 2)}, GB),
        ("0::/a/b\n", V2, {"cg/a": v2(8 * GB, GB), "cg/a/b": v2("max", GB, high=3 * GB)}, 2 * GB),
        # Over the limit is no negative number.
        ("0::/a\n", V2, {"cg/a": v2(GB, 2 * GB)}, 0),
        # No limit at all, and groups that are not there.
        ("0::/a\n", V2, {"cg/a": v2("max", GB)}, None),
        ("0::/gone\n", V2, {}, None),
        # A container sees its own group as the root of what is mounted, under its name outside or under "/".
        ("0::/\n", V2, {"cg": v2(6 * GB, 2 * GB)}, 4 * GB),
        (
            "0::/docker/abc\n",
            V2.replace(" / FOLDER", " /docker/abc FOLDER"),
            {"cg": v2(6 * GB, 2 * GB)},
            4 * GB,
        ),
        ("0::/docker/abc/x\n", V2.replace(" / FOLDER", " /docker/abc FOLDER"), {"cg/x": v2(6 * GB, GB)}, 5 * GB),
        ("0::/../other\n", V2, {"cg": v2(3 * GB, GB)}, 2 * GB),
        # Version 1, with the groups of other controllers elsewhere.
        (
            "3:cpu,cpuacct:/x\n2:memory:/a/b\n",
            V1,
            {"cg/memory/a": v1(2 * GB, GB), "cg/memory/a/b": v1(2**63 - 4096)},
            GB,
        ),
        ("2:memory:/a\n", V1, {"cg/memory/a": v1(4 * GB, GB, cache=GB // 4)}, 13 * GB // 4),
        # There a container learns of limits above its own group from one line only.
        ("2:memory:/\n", V1, {"cg/memory": v1(2**63 - 4096, GB, above=3 * GB)}, 2 * GB),
        ("2:memory:/a\n", V1, {"cg/memory/a": v1(2**63 - 4096, GB)}, None),
        # Both versions at once, as on systems in transition.
        ("2:memory:/a\n0::/b\n", V1 + V2.replace("cg ", "cg/unified "), {"cg/memory/a": v1(4 * GB, GB)}, 3 * GB),
        # A place with a space in its name.
        ("0::/a b\n", V2.replace("/cg", "/c\\040g"), {"c g/a b": v2(2 * GB, GB)}, GB),
        # Files that nobody can read.
        ("what is this\n", "nor this\n", {}, None),
        ("0::/a\n", V2, {"cg/a": {"memory.max": "many", "memory.current": "some"}}, None),
    ],
)
def test_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: Any, mounts: Any, groups: Any, free: Any) -> None:
    machine(monkeypatch, tmp_path, own, mounts, groups)
    assert cgroups.group_bytes() == free


def test_no_groups_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroups, "_PROCESS", tmp_path / "none")
    assert cgroups.group_bytes() is None


def test_the_tightest_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_system_bytes", lambda: 9 * GB)
    monkeypatch.setattr(memory, "_process_bytes", lambda: iter([7 * GB]))
    monkeypatch.setattr(memory, "_slurm_bytes", lambda: None)
    for group, least in ((None, 7 * GB), (8 * GB, 7 * GB), (5 * GB, 5 * GB)):
        monkeypatch.setattr(memory, "group_bytes", lambda group=group: group)
        assert available_bytes() == least


def test_psutil_answers_where_there_is_no_meminfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=123_456_789))
    assert memory._system_bytes() == 123_456_789
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert memory._system_bytes() is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="of Linux")
def test_psutil_agrees_with_meminfo() -> None:
    """Independently read; other programs take and give memory meanwhile."""
    import psutil

    assert memory._system_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


_LIMITED = """
import resource, sys
from torch_cntk._internal.memory import available_bytes
for name, field in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
    kind = getattr(resource, name)
    for left in map(int, sys.argv[1:]):
        status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
        used = int(status[field].split()[0]) * 1024
        resource.setrlimit(kind, (used + left, resource.RLIM_INFINITY))
        print(available_bytes() - left)
    resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="of Linux")
def test_limits_of_the_process() -> None:
    command = [sys.executable, "-c", _LIMITED, "700000000", "200000000", "50000000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    differences = [int(line) for line in done.stdout.split()]
    assert len(differences) == 6
    # A few megabytes come and go between the two questions.
    assert max(map(abs, differences)) < 20_000_000


@pytest.mark.parametrize(
    ("variables", "promised"),
    [
        ({"SLURM_MEM_PER_NODE": "8000"}, 8000 * 2**20),
        ({"SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "4"}, 4000 * 2**20),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_NODE": "much"}, None),
        ({}, None),
    ],
)
def test_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: Any, promised: Any) -> None:
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t  2000 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    assert memory._slurm_bytes() == (None if promised is None else promised - 2000 * 1024)


def test_require_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 3 * GB)
    require_bytes(3 * GB, "it", str)
    with pytest.raises(tc.OutOfMemoryError, match=r"^it needs 4 GB, but 3 GB are free; wait for 3000000000$"):
        require_bytes(4 * GB, "it", lambda free: f"wait for {free}")


# What torch could not allocate.


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: torch.empty(2**55, dtype=torch.uint8),
        lambda: torch.zeros(2**22, 1, dtype=torch.float64).expand(2**22, 2**22).contiguous(),
        lambda: torch.empty(2**62, 8),
        lambda: torch.ones(2**40, 2**40, 2**40),
        lambda: __import__("numpy").ones((2**45, 2**10)),
        lambda: bytearray(2**60),
    ],
)
def test_failed_allocations(attempt: Any) -> None:
    with pytest.raises(
        tc.OutOfMemoryError, match=r"^the attempt (could not get another .* of memory; .* are|needs more memory)"
    ):
        allocating("the attempt")(attempt)()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)",
            "could not get another 4 TB of memory; 2 GB are free",
        ),
        (
            "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate "
            "123000000 bytes.",
            "could not get another 123 MB of memory; 2 GB are free",
        ),
        (
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has",
            "could not get another 21.5 GB of memory; 2 GB are free",
        ),
        (
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
            "needs more memory than there is (2 GB are free; CUDA error",
        ),
        ("MPS backend out of memory (MPS allocated: 1 GB)", "needs more memory than there is (2 GB are free; MPS"),
    ],
)
def test_messages_of_several_allocators(monkeypatch: pytest.MonkeyPatch, message: Any, told: Any) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 2 * GB)
    kind = torch.OutOfMemoryError if "CUDA out" in message else RuntimeError
    with pytest.raises(tc.OutOfMemoryError) as caught, allocating("it"):
        raise kind(message)
    assert str(caught.value).startswith(f"it {told}")
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize(
    "words", ["could not create a memory object", "could not create a primitive", "std::bad_alloc"]
)
def test_what_libraries_say_is_understood_and_followed_by_advice(words: str) -> None:
    assert failed_allocation(RuntimeError(words))
    with (
        pytest.raises(tc.OutOfMemoryError, match=r"^it needs more memory .* are free; .*; take less$"),
        allocating("it", "cpu", lambda: "take less"),
    ):
        raise RuntimeError(words)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not fit"), ValueError("out of memory"), tc.OutOfMemoryError("told"), KeyError(1)]
)
def test_other_errors_stay(error: Any) -> None:
    with pytest.raises(type(error)) as caught, allocating("it"):
        raise error
    assert caught.value is error


def test_bytes_text() -> None:
    assert [bytes_text(n) for n in (999, 1234567, 2.5e9, 3e15)] == ["999 B", "1.23 MB", "2.5 GB", "3,000 TB"]
