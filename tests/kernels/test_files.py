"""Kernels in files: what comes back, and what is refused."""

from __future__ import annotations

import json
import math
import resource
import zlib
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

import torch_cntk as tc
from tests.helpers.networks import NETS, assert_equal, sized_kernel, smallest_size
from torch_cntk.kernels import files


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_kernel_comes_back_the_same(net: Any, dtype: Any, tmp_path: Path) -> None:
    kernel, size, dense = sized_kernel(net, dtype=dtype)
    kernel.save(tmp_path / "kernel.safetensors")
    loaded = tc.load_kernel(tmp_path / "kernel.safetensors")
    assert (loaded.period, loaded.radius, loaded.size) == (kernel.period, kernel.radius, kernel.size)
    assert loaded.dtype == dtype
    assert loaded.origin == json.loads(json.dumps(kernel.origin))
    assert loaded.origin["kind"] == "ntk"
    assert torch.equal(loaded.near.values, kernel.near.values)
    assert loaded.far is not None and kernel.far is not None
    assert torch.equal(loaded.far.values, kernel.far.values)
    assert torch.equal(loaded.dense(size), dense)


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_loaded_kernel_serves_sizes_on_which_it_wraps(net: Any, kind: Any, tmp_path: Path) -> None:
    kernel = net.kernel(tc.priors.Normal(0.2, 0.5), kind=kind)
    kernel.save(tmp_path / "kernel.safetensors")
    loaded = tc.load_kernel(tmp_path / "kernel.safetensors")
    size = tuple(math.lcm(p, n) for p, n in zip(kernel.period, smallest_size(net), strict=True))
    assert torch.equal(loaded.dense(size), kernel.dense(size))


def test_loaded_kernel_takes_the_dtype_asked_for(tmp_path: Path) -> None:
    kernel, size, dense = sized_kernel(NETS["bilinear"])
    kernel.save(tmp_path / "kernel.safetensors")
    loaded = tc.load_kernel(str(tmp_path / "kernel.safetensors"), dtype=torch.float32)
    assert loaded.dtype == torch.float32
    assert_equal(loaded.dense(size).double(), dense, 1e-6)
    assert loaded.dense((8, 8)).dtype == torch.float32


def test_dense_kernel_is_saved_without_its_features(tmp_path: Path, generator: torch.Generator) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 8, 8, generator=generator)))
    kernel.save(tmp_path / "kernel.safetensors")
    loaded = tc.load_kernel(tmp_path / "kernel.safetensors")
    assert loaded.size == (8, 8)
    assert loaded.origin["prior"] is None
    assert torch.equal(loaded.dense(), kernel.dense())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compact_file_holds_the_same_kernel(net: Any, dtype: Any, tmp_path: Path) -> None:
    kernel, size, dense = sized_kernel(net, dtype=dtype)
    kernel.save(tmp_path / "compact.safetensors", compact=True)
    loaded = tc.load_kernel(tmp_path / "compact.safetensors")
    assert (loaded.period, loaded.radius, loaded.size, loaded.dtype) == (kernel.period, kernel.radius, None, dtype)
    assert loaded.near.geometry == kernel.near.geometry
    # Entries that are equal by symmetry were computed in another order.
    assert_equal(loaded.dense(size), dense, 4 * torch.finfo(dtype).eps)


def test_compact_file_is_smaller_by_the_symmetries(tmp_path: Path) -> None:
    kernel = tc.default_network(levels=4).kernel(tc.priors.Uniform(), dtype=torch.float32)
    kernel.save(tmp_path / "kernel.safetensors", compact=True)
    # A quarter of the entries, before compression.
    assert (tmp_path / "kernel.safetensors").stat().st_size < kernel.nbytes / 4


def test_compact_file_of_a_dense_kernel_holds_it_to_the_bit(tmp_path: Path, generator: torch.Generator) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Tensor(torch.randn(3, 8, 12, generator=generator)))
    kernel.save(tmp_path / "kernel.safetensors", compact=True)
    assert torch.equal(tc.load_kernel(tmp_path / "kernel.safetensors").dense(), kernel.dense())


@pytest.mark.parametrize("place", [0.4, 0.6, 0.8, 0.95])
def test_damaged_compact_file_is_refused(saved: Any, place: Any) -> None:
    NETS["nearest"].kernel(tc.priors.Uniform(), dtype=torch.float32).save(saved, compact=True)
    content = bytearray(saved.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[header + int(place * (len(content) - header))] ^= 0x55
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="not a consistent kernel file"):
        tc.load_kernel(saved)


def test_saving_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "kernel.safetensors"
    NETS["bilinear"].kernel(tc.priors.Uniform()).save(path)
    NETS["nearest"].kernel(tc.priors.Uniform()).save(path)
    assert tc.load_kernel(path).radius == (3, 3)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    path = tmp_path / "kernel.safetensors"
    NETS["nearest"].kernel(tc.priors.Uniform()).save(path)
    return path


def rewrite(path: Any, change_tensors: Any = None, change_facts: Any = None) -> None:
    with safetensors.safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (key,) = metadata
    facts = json.loads(metadata[key])
    facts.pop("sha256", None)  # as in files of older versions
    for change, value in ((change_tensors, tensors), (change_facts, facts)):
        if change is not None:
            change(value)
    safetensors.torch.save_file(tensors, path, {key: json.dumps(facts)})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no kernel file .*nothing\.safetensors"):
        tc.load_kernel(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_truncated_file_is_refused(saved: Any, share: Any) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        tc.load_kernel(saved)


def test_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kernel.safetensors"
    path.write_bytes(b"\xff" * 1000)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        tc.load_kernel(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_foreign_file_is_refused(tmp_path: Path, metadata: Any) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"near": torch.ones(3)}, path, metadata)
    with pytest.raises(ValueError, match=r"expected a file written by Kernel\.save"):
        tc.load_kernel(path)


@pytest.mark.parametrize("version", [2, 99])
def test_newer_format_is_refused(saved: Any, version: Any) -> None:
    rewrite(saved, change_facts=lambda facts: facts.update(version=version))
    with pytest.raises(ValueError, match=f"expected format version 1 or older, got {version}"):
        tc.load_kernel(saved)


@pytest.mark.parametrize(
    ("change_tensors", "change_facts"),
    [
        (lambda tensors: tensors.update(near=tensors["near"][:, :-1].clone()), None),
        (lambda tensors: tensors.update(far=torch.zeros(1, 2, 1, 1, 1)), None),
        (lambda tensors: tensors.pop("near"), None),
        (lambda tensors: tensors.pop("far"), None),
        (None, lambda facts: facts.pop("radius")),
        (None, lambda facts: facts.pop("version")),
        (None, lambda facts: facts.update(version="next")),
        (None, lambda facts: facts.update(compact="float32")),
        (None, lambda facts: facts["tables"].pop("near")),
        (None, lambda facts: facts["tables"]["near"].update(period=[8, 8])),
        (None, lambda facts: facts["tables"].update(near=3)),
        (None, lambda facts: facts.update(radius="large")),
        (None, lambda facts: facts.update(radius=[3])),
        (None, lambda facts: facts.update(radius=[30, 30])),
        (None, lambda facts: facts.update(size=[7, 7, 7])),
        (None, lambda facts: facts.update(size=[8, 8])),
        (None, lambda facts: facts.update(radius=[-1, 3])),
        (None, lambda facts: facts.update(radius=[2.5, 3])),
        (None, lambda facts: facts.update(origin=[])),
        (None, lambda facts: facts.update(origin=None)),
        (None, lambda facts: facts.update(tables=[])),
        (None, lambda facts: facts.update(compact="complex64")),
        (None, lambda facts: facts["tables"]["near"].update(size=[])),
        (None, lambda facts: facts["tables"]["near"].update(size=[10**6, 10**6])),
        (None, lambda facts: facts["tables"]["near"].update(size=[10**60, 10**60], period=[10**60, 10**60])),
        (None, lambda facts: facts["tables"]["near"].update(reflective="yes")),
        (None, lambda facts: facts["tables"]["near"].update(period=[3, 4])),
        (None, lambda facts: facts["tables"]["near"].update(reach=[10**7, 10**7], tapered=True)),
        (None, lambda facts: facts["tables"].update(other=facts["tables"]["near"])),
        (lambda tensors: tensors.update(near=tensors["near"].float()), None),
        (lambda tensors: tensors.update(near=tensors["near"].to(torch.int64)), None),
        (lambda tensors: tensors.update(near=tensors["near"][0]), None),
    ],
)
def test_inconsistent_file_is_refused(saved: Any, change_tensors: Any, change_facts: Any) -> None:
    rewrite(saved, change_tensors=change_tensors, change_facts=change_facts)
    with pytest.raises(ValueError, match="not a consistent kernel file"):
        tc.load_kernel(saved)


@pytest.mark.parametrize("compact", [False, True])
def test_file_without_a_checksum_is_read(saved: Any, compact: Any) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    kernel.save(saved, compact=compact)
    expected = tc.load_kernel(saved)
    rewrite(saved)
    assert torch.equal(tc.load_kernel(saved).near.values, expected.near.values)


@pytest.mark.parametrize("compact", [False, True])
def test_any_damaged_byte_is_noticed(saved: Any, compact: Any, generator: torch.Generator) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    kernel.save(saved, compact=compact)
    good = saved.read_bytes()
    assert torch.equal(tc.load_kernel(saved).dense((8, 8)), tc.load_kernel(saved).dense((8, 8)))
    places = torch.randint(8, len(good), (40,), generator=generator).tolist()
    for place in places:
        damaged = bytearray(good)
        damaged[place] ^= 0x10
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"kernel\.safetensors"):
            tc.load_kernel(saved)


@pytest.mark.parametrize("name", ["sha256", "compact", "radius", "origin", "tables", "size", "version"])
def test_damaged_names_of_facts_are_noticed(saved: Any, name: str) -> None:
    """A checksum of another name is not one that is missing."""
    NETS["nearest"].kernel(tc.priors.Uniform()).save(saved)
    good = saved.read_bytes()
    place = good.index(rb"\"%b\"" % name.encode()) + 2
    for k in range(len(name)):
        damaged = bytearray(good)
        damaged[place + k] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"kernel\.safetensors"):
            tc.load_kernel(saved)


def test_deeply_nested_facts_are_refused(saved: Any) -> None:
    with safetensors.safe_open(saved, "pt") as file:
        (key,), tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for text in ("[" * 100_000, '{"version": ' + "9" * 5000 + "}", '{"version": 1e999}', "null", ""):
        safetensors.torch.save_file(tensors, saved, {key: text})
        with pytest.raises(ValueError, match=r"kernel\.safetensors is not a consistent kernel file"):
            tc.load_kernel(saved)


@pytest.mark.parametrize("claim", [None, [1 << 20, 1 << 20]])
def test_little_is_allocated_for_a_file_that_unpacks_to_much(saved: Any, claim: Any) -> None:
    """A megabyte that deflate makes a gigabyte of; and one of which the facts say so."""
    NETS["nearest"].kernel(tc.priors.Uniform()).save(saved, compact=True)
    deflate = zlib.compressobj(9)
    bomb = b"".join([*(deflate.compress(bytes(1 << 20)) for _ in range(1000)), deflate.flush()])

    def explode(tensors: Any) -> None:
        tensors.update({name: torch.frombuffer(bytearray(bomb), dtype=torch.uint8).clone() for name in tensors})

    def boast(facts: Any) -> None:
        if claim is not None:
            facts["tables"]["near"].update(size=claim)

    rewrite(saved, explode, boast)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="not a consistent kernel file"):
        tc.load_kernel(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_file_that_would_not_fit_is_refused(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tc.default_network(4, width=1).kernel(tc.priors.Uniform()).save(saved, compact=True)
    monkeypatch.setattr("torch_cntk._internal.memory._SMALL", 0)
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": 1000)
    with pytest.raises(tc.OutOfMemoryError, match=r"reading the kernel file needs .* MB, but 1 kB are free"):
        tc.load_kernel(saved)


def test_shipped_files_have_no_checksum_and_are_written_byte_for_byte(tmp_path: Path) -> None:
    name = "uniform-2x128-relu"
    shipped = tc.catalogue.index()[name]
    kernel = tc.load_kernel(name)
    files.write(tmp_path / "again.safetensors", kernel.storage, kernel.origin, compact=True, checksum=False)
    assert (tmp_path / "again.safetensors").read_bytes() == shipped.path.read_bytes()


def test_windowed_kernels_come_back_the_same(tmp_path: Path, generator: torch.Generator) -> None:
    prior = tc.priors.White(0.1) + tc.priors.Tensor(torch.randn(2, 8, 12, generator=generator))
    for compact in (False, True):
        kernel = NETS["nearest"].kernel(prior, (8, 12), radius=(3, 4), dtype=torch.float16)
        kernel.save(tmp_path / "kernel.safetensors", compact=compact)
        loaded = tc.load_kernel(tmp_path / "kernel.safetensors")
        assert type(loaded.storage) is type(kernel.storage)
        assert (loaded.size, loaded.radius, loaded.dtype) == (kernel.size, kernel.radius, kernel.dtype)
        assert torch.equal(loaded.dense(), kernel.dense())


def test_file_of_an_unknown_network_is_refused(saved: Any) -> None:
    rewrite(saved, change_facts=lambda facts: facts["origin"]["network"]["layers"][0].update(layer="Conv7d"))
    with pytest.raises(ValueError, match="describes a network that this version does not know"):
        tc.load_kernel(saved)


def test_saving_into_a_missing_folder_makes_nothing(tmp_path: Path) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(FileNotFoundError, match="expected the output's folder to exist"):
        kernel.save(tmp_path / "missing" / "kernel.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_saving_onto_a_folder_is_refused(tmp_path: Path) -> None:
    kernel = NETS["nearest"].kernel(tc.priors.Uniform())
    with pytest.raises(OSError, match="expected a file to write to"):
        kernel.save(tmp_path)


def test_failed_save_leaves_no_file_and_keeps_the_old_one(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fill_the_disk(tensors: Any, path: Any, metadata: Any) -> None:
        path.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        NETS["bilinear"].kernel(tc.priors.Uniform()).save(saved)
    assert list(saved.parent.iterdir()) == [saved]
    assert saved.read_bytes() == before
