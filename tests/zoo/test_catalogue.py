"""Kernels by name: what ships, and what is computed once and kept."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch

import torch_cntk as tc
from tests.helpers import brute_force
from torch_cntk import catalogue
from torch_cntk.cli import main as cli
from torch_cntk.covariance import duals
from torch_cntk.zoo.loading import cached_names

BUILD = Path(__file__).parents[2] / "precomputed" / "build.py"


@pytest.fixture(scope="module")
def build() -> Any:
    spec = importlib.util.spec_from_file_location("build", BUILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TORCH_CNTK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Names of the networks whose kernels are computed."""
    calls: list[int] = []
    compute = tc.Sequential.kernel

    def counted(self: tc.Sequential, *arguments: Any, **options: Any) -> tc.Kernel:
        calls.append(len(self))
        return compute(self, *arguments, **options)

    monkeypatch.setattr(tc.Sequential, "kernel", counted)
    return calls


# Shipped kernels.


def test_index_is_complete_and_small(build: Any) -> None:
    index = catalogue.index()
    assert list(index) == build.NAMES
    for entry in index.values():
        content = entry.path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)
    assert sum(entry.bytes for entry in index.values()) <= 64e6


@pytest.mark.parametrize("name", list(catalogue.index()))
def test_shipped_kernel_is_what_its_name_says(name: Any) -> None:
    recipe, shipped = catalogue.recipe(name), tc.load_kernel(name)
    assert recipe is not None
    rebuilt = recipe.network.kernel(recipe.prior, recipe.size)
    assert shipped.origin == recipe.origin
    assert (shipped.period, shipped.radius, shipped.size) == (rebuilt.period, rebuilt.radius, rebuilt.size)
    assert shipped.dtype == torch.float32
    # float32 of the largest entry; another machine's atan2 differs by less.
    for ours, theirs in ((shipped.near, rebuilt.near), (shipped.far, rebuilt.far)):
        if theirs is not None:
            assert ours is not None
            assert (ours.values.double() - theirs.values).abs().max() <= 1e-7 * theirs.values.abs().max()


@pytest.mark.parametrize("name", ["uniform-1x128-relu", "uniform-plain-2x128-leaky0.1"])
def test_shipped_kernel_equals_the_recursion(name: Any) -> None:
    size = (16, 16)
    recipe = catalogue.recipe(name)
    assert recipe is not None
    _, expected = brute_force.propagate(recipe.network, brute_force.independent_prior(size, 0.05, 0.01 / 3))
    kernel = tc.load_kernel(name, dtype=torch.float64).dense(size)
    assert (kernel - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_name_of_a_network_with_skip_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CNTK_CACHE", str(tmp_path))
    size = (8, 8)
    expected = tc.hourglass(2, 16, 4, slope=0.2).kernel(tc.priors.Uniform(0, 0.1)).dense(size)
    kernel = tc.load_kernel("uniform-skip-2x16-leaky0.2", dtype=torch.float64).dense(size)
    assert (kernel - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_build_writes_a_file_and_its_entry(build: Any, tmp_path: Path) -> None:
    entry = build.build("uniform-2x128-relu", tmp_path)
    content = (tmp_path / "uniform-2x128-relu.safetensors").read_bytes()
    assert (entry.bytes, entry.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert entry.network == catalogue.index()["uniform-2x128-relu"].network
    again = tmp_path / "again"
    again.mkdir()
    assert build.build("uniform-2x128-relu", again) == entry


def test_shipped_kernel_fills_an_image(generator: torch.Generator) -> None:
    image = torch.rand(1, 30, 44, generator=generator)
    observed = torch.rand(30, 44, generator=generator) < 0.5
    result = tc.inpaint(image, observed, tc.load_kernel("uniform-3x128-leaky0.1"))
    assert result.converged


def test_name_takes_the_dtype_asked_for() -> None:
    assert tc.load_kernel("uniform-1x128-relu", dtype=torch.float64).dtype == torch.float64


def test_damaged_shipped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "uniform-1x128-relu"
    content = bytearray(catalogue.index()[name].path.read_bytes())
    content[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    monkeypatch.setattr(catalogue, "folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="is damaged: expected the SHA-256 sum"):
        tc.load_kernel(name)
    (tmp_path / f"{name}.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="expected the precomputed kernel"):
        tc.load_kernel(name)


def test_damaged_index_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "folder", lambda: tmp_path)
    for text in ("[", '[{"name": 3}]', "[3]"):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(ValueError, match="the index of precomputed kernels is damaged"):
            catalogue.index.__wrapped__()
    (tmp_path / "index.json").unlink()
    assert catalogue.index.__wrapped__() == {}


# Names.


@pytest.mark.parametrize(
    "name", ["nonsense", "uniform", "uniform-0x128-relu", "uniform-3x128-swish", "normal-3x128-relu"]
)
def test_unknown_name_is_refused_with_an_example(name: Any, cache: Any) -> None:
    with pytest.raises(
        FileNotFoundError, match=f"no kernel file {name}, and it is no kernel's name, such as 'uniform-"
    ):
        tc.load_kernel(name)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("uniform-3x128-relu-64x64", "serves every size"), ("identity-3x128-relu", "has one size: expected identity-3x")],
)
def test_name_with_a_size_too_many_or_too_few_is_refused(name: Any, message: Any) -> None:
    with pytest.raises(ValueError, match=message):
        tc.load_kernel(name)


# The cache.


def test_kernel_that_does_not_ship_is_computed_once(cache: Any, built: Any) -> None:
    name = "identity-1x8-leaky0.25-12x8"
    first = tc.load_kernel(name)
    assert (len(built), cached_names()) == (1, [name])
    second = tc.load_kernel(name)
    assert len(built) == 1
    recipe = catalogue.recipe(name)
    assert recipe is not None
    expected = recipe.network.kernel(recipe.prior, (12, 8), dtype=torch.float32)
    assert first.size == second.size == (12, 8)
    assert torch.equal(first.near.values, second.near.values)
    assert torch.equal(first.near.values, expected.near.values)


def test_several_threads_compute_it_once(cache: Any, built: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        kernels = list(pool.map(lambda _: tc.load_kernel("uniform-2x16-leaky0.3"), range(4)))
    assert len(built) == 1
    assert all(torch.equal(kernel.near.values, kernels[0].near.values) for kernel in kernels)


def test_two_processes_at_once_leave_one_good_file(cache: Any) -> None:
    code = "import torch_cntk as tc; print(tc.load_kernel('uniform-3x16-leaky0.4'))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=dict(os.environ), text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1]
    assert [path.suffix for path in sorted(cache.iterdir())] in ([".lock", ".safetensors"], [".safetensors"])


@pytest.mark.parametrize("damage", ["a byte", "half", "nothing left", "text"])
def test_damaged_cached_file_is_computed_again(
    cache: Any, built: Any, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    name = "uniform-2x16-relu"
    expected = tc.load_kernel(name)
    (path,) = cache.glob("*.safetensors")
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[-5] ^= 0xFF
    damaged = {"a byte": bytes(flipped), "half": good[: len(good) // 2], "nothing left": b"", "text": b"kernel" * 99}
    path.write_bytes(damaged[damage])
    again = tc.load_kernel(name)
    assert (len(built), len(caplog.records)) == (2, 1)
    assert str(path) in caplog.text
    assert torch.equal(again.near.values, expected.near.values)
    assert path.read_bytes() == good


def test_cached_file_of_another_kernel_is_computed_again(cache: Any, caplog: pytest.LogCaptureFixture) -> None:
    tc.load_kernel("uniform-2x16-relu")
    (path,) = cache.glob("*.safetensors")
    path.rename(path.with_name(path.name.replace("relu", "leaky0.5")))
    kernel = tc.load_kernel("uniform-2x16-leaky0.5")
    assert "another network or prior than its name" in caplog.text
    recipe = catalogue.recipe("uniform-2x16-leaky0.5")
    assert recipe is not None and kernel.origin == recipe.origin


def fill_the_disk(*arguments: Any, **options: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("fault", ["full disk", "no folder", "no lock", "read only"])
def test_cache_that_cannot_be_used_costs_a_warning(
    cache: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    name = "uniform-2x16-relu"
    match fault:
        case "full disk":
            monkeypatch.setattr("torch_cntk.kernels.files.safetensors.torch.save_file", fill_the_disk)
        case "no folder":
            cache.write_text("a file where the folder should be")
        case "no lock":
            monkeypatch.setattr("filelock.FileLock.acquire", fill_the_disk)
        case "read only":
            monkeypatch.setattr("torch_cntk.kernels.files.writing", fill_the_disk)
    first = tc.load_kernel(name)
    assert caplog.records
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_CNTK_CACHE", str(cache.parent / "another"))
    # What was computed is what would have been read, to the bit: entries that are equal by symmetry, and the origin.
    for other in (tc.load_kernel(name), tc.load_kernel(name)):
        assert torch.equal(first.near.values, other.near.values)
        assert first.far is not None and other.far is not None
        assert torch.equal(first.far.values, other.far.values)
        assert first.origin == other.origin
        assert torch.equal(first.dense((4, 4)), other.dense((4, 4)))


def test_cached_kernel_is_read_without_a_lock(cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tc.load_kernel("uniform-2x16-relu")
    monkeypatch.setattr("filelock.FileLock.acquire", fill_the_disk)
    monkeypatch.setattr("torch_cntk.zoo.loading._computed", fill_the_disk)
    tc.load_kernel("uniform-2x16-relu")


def test_process_that_stands_still_does_not_hold_others_up(
    cache: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir()
    monkeypatch.setattr("torch_cntk.zoo.loading._LOCK_SECONDS", 0.2)
    with filelock.FileLock(cache / "uniform-2x16-relu.v1.lock"):
        tc.load_kernel("uniform-2x16-relu")
    assert "cannot be locked" in caplog.text
    assert cached_names() == ["uniform-2x16-relu"]


def test_lock_of_a_killed_process_is_released(cache: Any) -> None:
    cache.mkdir()
    path = cache / "uniform-2x16-relu.v1.lock"
    code = f"import filelock, time; lock = filelock.FileLock({str(path)!r}); lock.acquire(); print('held', flush=True)"
    process = subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(600)"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    with filelock.FileLock(path, timeout=5):
        pass


@pytest.mark.parametrize("name", ["uniform-2x16-relu", "identity-1x8-leaky0.25-12x8", "uniform-3x128-leaky0.1"])
def test_loading_draws_no_random_numbers(cache: Any, name: Any) -> None:
    state = torch.random.get_rng_state()
    for _ in range(2):
        tc.load_kernel(name)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "name",
    [
        "uniform-999999x999999-relu",
        "uniform-60x128-relu",
        "uniform-3x999999999999999999-relu",
        "identity-3x128-relu-1048576x1048576",
        f"uniform-{'9' * 5000}x1-relu",
    ],
)
def test_absurd_name_is_refused_at_once(name: Any, cache: Any) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match="expected at most"):
        tc.load_kernel(name)
    assert time.perf_counter() - start < 1
    assert not cache.exists()


def test_interrupted_kernel_leaves_nothing_and_can_be_computed_again(
    cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "meshgrid-2x16-relu-16x16"
    activate = duals.Rectifier.by_arcsine
    calls = []

    def interrupt(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return activate(*arguments, **options)

    monkeypatch.setattr(duals.Rectifier, "by_arcsine", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tc.load_kernel(name)
    assert not list(cache.glob("*.safetensors"))
    again = tc.load_kernel(name)
    recipe = catalogue.recipe(name)
    assert recipe is not None
    assert torch.equal(again.near.values, recipe.network.kernel(recipe.prior, (16, 16)).near.values.float())


def test_kernel_that_would_not_fit_is_refused_and_not_cached(cache: Any) -> None:
    with pytest.raises(tc.OutOfMemoryError):
        tc.load_kernel("identity-2x16-relu-4096x4096")
    assert not list(cache.glob("*.safetensors"))


# The command.


def test_kernels_lists_what_ships_and_what_is_cached(cache: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tc.load_kernel("uniform-1x16-leaky0.5")
    assert cli.main(["kernels"]) == 0
    out = capsys.readouterr().out
    for entry in json.loads((catalogue.folder() / "index.json").read_text()):
        assert any(entry["name"] in line and f"{entry['bytes']:,}" in line for line in out.splitlines())
    assert "multiples of 64" in out
    assert "uniform-1x16-leaky0.5" in out


def test_commands_take_kernels_by_name(cache: Any, tmp_path: Path) -> None:
    output = tmp_path / "map.png"
    arguments = ["heatmap", "--kernel", "identity-3x128-leaky0.1-32x32", "--size", "32", "32", "--pixel", "3", "4"]
    assert cli.main([*arguments, "-o", str(output)]) == 0
    assert output.stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "a prior among uniform, identity, meshgrid comes first"),
        ("unifrom-5x128-relu", "a prior among uniform, identity, meshgrid comes first"),
        ("uniform", "a prior among uniform"),
        ("uniform-deep-5x128-relu", "a network among plain, skip, fine, wide or none of them, got deep"),
        ("uniform-coarse-5x128-relu", "a network among plain, skip, fine, wide or none of them, got coarse"),
        ("uniform-plain", "LEVELSxCHANNELS, as in uniform-5x128-leaky0.1, got nothing"),
        ("uniform-5-relu", "LEVELSxCHANNELS, as in uniform-5x128-leaky0.1, got 5"),
        ("uniform-0x8-relu", "LEVELSxCHANNELS, as in uniform-5x128-leaky0.1, got 0x8"),
        ("uniform-5x128", "an activation among relu, leaky_relu, abs, .*, or leaky0.1 with any slope, got nothing"),
        ("uniform-5x128-rulu", "an activation among relu, leaky_relu, abs, .*, or leaky0.1 with any slope, got rulu"),
        ("uniform-5x128-leaky", "an activation among relu, leaky_relu, abs, .*, or leaky0.1 with any slope, got leaky"),
        ("identity-5x128-relu-64", "HEIGHTxWIDTH behind the activation, or nothing, got 64"),
    ],
)
def test_the_part_of_a_name_that_is_wrong_is_told(name: str, told: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"expected .*{told}"):
        tc.load_kernel(name)
    with pytest.raises(ValueError, match=rf"expected .*{told}"):
        tc.inpaint(torch.rand(1, 4, 4), torch.eye(4) > 0, name)
