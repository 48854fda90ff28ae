"""Checkpoints: resumed runs, damage, full disks."""

from __future__ import annotations

import errno
import inspect
import multiprocessing
import os
import random
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

import torch_cntk as tc
from tests.helpers.training import PRIOR, mask, network, photograph, run, same
from torch_cntk.finite import checkpoint

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "jitter": {"jitter": 0.1},
    "batch norm": {"batch_norm": True, "parameterisation": "standard"},
    "Langevin": {"langevin": 1.0, "iterate": "average", "burn_in": 3, "decay": None},
    "cosine": {"schedule": "cosine"},
    "step schedule": {"schedule": lambda optimiser: StepLR(optimiser, 4)},
    "SGD": {"optimiser": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9), "lr": 0.001},
    "held out, best": {"holdout": 0.3, "iterate": "best", "patience": 30},
    "average": {"iterate": "average", "decay": 0.5},
    "no head": {"head": "none"},
    "channels last": {"channels_last": True},
    "bfloat16": {"autocast": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_interrupted_runs_end_as_uninterrupted_ones(name: Any, tmp_path: Path) -> None:
    options = OPTIONS[name]
    net = network(dropout=0.2)
    whole = run(net, **options)
    assert torch.isfinite(whole.losses).all()
    path = tmp_path / "run.pt"

    class KilledError(Exception):
        pass

    def kill_at(number: int) -> Any:
        def callback(step: Any) -> None:
            if step.number == number:
                raise KilledError

        return callback

    for number in (5, 9):  # after the checkpoints of steps 4 and 8
        with pytest.raises(KilledError):
            run(net, **options, checkpoint=path, checkpoint_every=4, callback=kill_at(number))
    resumed = run(net, **options, checkpoint=path, checkpoint_every=4)
    assert same(resumed, whole)
    assert torch.equal(resumed.image, whole.image)
    if whole.holdout_losses is not None:
        assert resumed.holdout_losses is not None
        assert torch.equal(resumed.holdout_losses, whole.holdout_losses)
    assert resumed.best_step == whole.best_step
    # A finished run is not done again.
    assert same(run(net, **options, checkpoint=path, callback=kill_at(13)), whole)


def train_until_killed(path: Path) -> None:
    torch.set_num_threads(1)

    def callback(step: Any) -> None:
        if step.number == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    run(jitter=0.1, checkpoint=path, checkpoint_every=1, callback=callback)


def test_a_killed_process_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    process = multiprocessing.get_context("spawn").Process(target=train_until_killed, args=(path,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.pt"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seen = []
        resumed = run(jitter=0.1, checkpoint=path, callback=lambda step: seen.append(step.number))
        assert seen == list(range(8, 13))
        assert same(resumed, run(jitter=0.1))
    finally:
        torch.set_num_threads(threads)


def test_more_steps_go_on_where_fewer_ended(tmp_path: Path) -> None:
    run(steps=5, checkpoint=tmp_path / "run.pt")
    assert same(run(steps=12, checkpoint=tmp_path / "run.pt"), run(steps=12))
    with pytest.raises(ValueError, match=r"expected steps of at least 12, which .* has behind it, got 7"):
        run(steps=7, checkpoint=tmp_path / "run.pt")


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    torch.save({"version": 1}, path)
    for content in (path.read_bytes(), b"", b"PK\x03\x04 nonsense"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="another or a damaged file"):
            run(checkpoint=path)
    run(checkpoint=tmp_path / "good.pt")
    whole = (tmp_path / "good.pt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="another or a damaged file"):
        run(checkpoint=path)


class Malicious:
    """What a pickle could hold."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("was-executed",)


def test_checkpoints_are_read_without_executing_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"version": 1, "run": Malicious()}, "run.pt")
    with pytest.raises(ValueError, match="another or a damaged file"):
        run(checkpoint="run.pt")
    assert not Path("was-executed").exists()


def test_checkpoints_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(checkpoint=path)
    with pytest.raises(ValueError, match=r"got one of another: .*; different: lr"):
        run(checkpoint=path, lr=0.02)
    # An integer says the same as the number that it is.
    assert same(run(checkpoint=path, jitter=0, langevin=0), run())
    with pytest.raises(ValueError, match="different: image"):
        tc.train(network(), photograph() * 0.9, mask(), prior=PRIOR, steps=12, checkpoint=path)
    with pytest.raises(ValueError, match="different: net"):
        run(tc.hourglass(1, 9, 2, channels=2, in_channels=3), checkpoint=path)
    state = torch.load(path, weights_only=True)
    torch.save(state | {"version": 99}, path)
    with pytest.raises(ValueError, match="expected a checkpoint of version 1 or 2, got 99"):
        run(checkpoint=path)
    with pytest.raises(FileNotFoundError, match="expected the checkpoint's folder to exist"):
        run(checkpoint=tmp_path / "nowhere" / "run.pt")


# Damage.


def resume_or_refuse(path: Path, expected: tc.TrainingResult, steps: int = 12) -> bool:
    """Whether a file is refused with its name; otherwise it must have been read right."""
    try:
        found = run(checkpoint=path, jitter=0.1, steps=steps)
    except ValueError as error:
        assert str(path) in str(error)
        return True
    assert same(found, expected)
    return False


def test_no_flipped_bit_changes_the_result_without_a_word(tmp_path: Path) -> None:
    path, expected = tmp_path / "run.pt", run(jitter=0.1)
    run(steps=5, jitter=0.1, checkpoint=path)
    whole = path.read_bytes()
    chance = random.Random(1)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        refused += resume_or_refuse(path, expected)
    # Tensors are most of the file; what is not refused lies in the zip file's own fields, which nothing reads.
    assert refused > 20


@pytest.mark.parametrize("version", [1, 2])
def test_files_cut_short_at_any_place_are_refused(version: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(steps=5, jitter=0.1, checkpoint=path)
    if version == 1:
        as_version_1(path)
    whole = path.read_bytes()
    for share in (0.01, 0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match="another or a damaged file"):
            run(jitter=0.1, checkpoint=path)


def test_any_missing_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(steps=5, checkpoint=path)
    state = torch.load(path, weights_only=True)
    for name in state:
        torch.save({key: value for key, value in state.items() if key != name}, path)
        with pytest.raises(ValueError, match="another or a damaged file") as caught:
            run(checkpoint=path)
        assert str(path) in str(caught.value)


def test_any_changed_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(steps=5, holdout=0.2, checkpoint=path)
    state = torch.load(path, weights_only=True)
    state["model"][next(iter(state["model"]))][0] += 1e-6
    changes = {
        "model": state["model"],
        "losses": state["losses"][:-1],
        "best": (0.0, 1),
        "weight": 1.0,
        "seconds": None,
        "random": state["random"].flip(0),
        "optimiser": {},
    }
    for name, value in changes.items():
        torch.save(torch.load(path, weights_only=True) | {name: value}, tmp_path / "changed.pt")
        with pytest.raises(ValueError, match="its checksum does not fit"):
            run(holdout=0.2, checkpoint=tmp_path / "changed.pt")


def test_folders_and_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        run(checkpoint=tmp_path / "folder")
    for name, content in (("text", b"not a checkpoint"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="another or a damaged file"):
            run(checkpoint=tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    for name in ("list.pt", "tensor.pt"):
        with pytest.raises(ValueError, match="another or a damaged file"):
            run(checkpoint=tmp_path / name)


def test_checksums_see_types_shapes_and_bits() -> None:
    values = [
        None, 0, 0.0, -0.0, False, "0", b"0", [0], (0,), {0: 0}, [0, 0], [[0], 0], [0, [0]], "", [], {}, {"a": None},
        torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, dtype=torch.int32), -torch.zeros(2), torch.zeros(()),
        torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bool), torch.zeros(0),
    ]  # fmt: skip
    assert len({checkpoint.checksum(value) for value in values}) == len(values)
    # The same numbers in another memory format.
    images = torch.rand(2, 3, 4, 5)
    stored = images.to(memory_format=torch.channels_last)
    assert checkpoint.checksum({"a": images}) == checkpoint.checksum({"a": stored})


# Checkpoints of the version before.


def as_version_1(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    del state["checksum"]
    torch.save(state | {"version": 1}, path)


def version_1_run(**options: Any) -> tc.TrainingResult:
    """The run whose first five steps are in tests/data/checkpoints, written by the first version."""
    net = tc.Sequential(tc.Conv2d(2, 4, 3), tc.LeakyReLU(0.5), tc.Dropout(0.5), tc.Conv2d(4, 1, 1))
    image = (torch.arange(48) % 7).reshape(1, 6, 8) / 8
    observed = torch.arange(48).reshape(6, 8) % 3 > 0
    prior = tc.priors.Uniform(0, 1)
    how: dict[str, Any] = {"jitter": 0.125, "holdout": 0.25, "iterate": "best", "prior": prior, "steps": 9}
    return tc.train(net, image, observed, **how, **options)


def test_checkpoints_of_version_1_are_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes((Path(__file__).parents[1] / "data" / "checkpoints" / "version-1.pt").read_bytes())
    # What that version found without an interruption, up to the rounding of other processors.
    expected = [0.0731181, 0.0775916, 0.0843061, 0.0595885, 0.0576176, 0.0684684, 0.0815536, 0.0698971, 0.0680183]
    found = version_1_run(checkpoint=path).losses
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=0)
    assert torch.load(path, weights_only=True)["version"] == 2


def test_damage_to_version_1_is_found_too(tmp_path: Path) -> None:
    path, expected = tmp_path / "run.pt", run(jitter=0.1)
    run(steps=5, jitter=0.1, checkpoint=path)
    as_version_1(path)
    whole = path.read_bytes()
    chance = random.Random(2)
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        resume_or_refuse(path, expected)
    path.write_bytes(whole)
    assert not resume_or_refuse(path, expected)


# Names and disks.


@pytest.mark.parametrize("name", ["run", "run.ckpt", ".hidden", "two.dots.pt", "with space", "ünïcode", "run."])
def test_checkpoints_may_have_any_name(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(steps=5, checkpoint=name)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert same(run(checkpoint=tmp_path / name), run())


def full_disk(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def broken_writer(*arguments: Any) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")


@pytest.mark.parametrize("failure", [full_disk, broken_writer])
def test_a_full_disk_costs_a_warning_and_no_training(
    failure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expected = tmp_path / "run.pt", run(jitter=0.1)
    run(steps=5, jitter=0.1, checkpoint=path)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", failure)
    with pytest.warns(UserWarning, match="the checkpoint was not written, training goes on") as caught:
        found = run(jitter=0.1, checkpoint=path, checkpoint_every=1)
    assert same(found, expected)
    # At the line that called `train`, not within the package or what decorates it.
    assert caught[0].filename == inspect.getsourcefile(run)
    # Said once for failures in a row; the file before stays, and nothing lies beside it.
    assert len(caught) == 1
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.pt"]


def test_a_disk_with_room_again_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, save = tmp_path / "run.pt", torch.save
    calls: list[int] = []

    def sometimes(state: object, file: Any) -> None:
        calls.append(len(calls))
        if calls[-1] in (1, 2, 5):
            full_disk()
        save(state, file)

    monkeypatch.setattr(torch, "save", sometimes)
    with pytest.warns(UserWarning, match="(?i)no space") as caught:
        run(steps=8, checkpoint=path, checkpoint_every=1)
    assert len(caught) == 2
    assert len(torch.load(path, weights_only=True)["losses"]) == 8


def test_a_folder_that_vanishes_costs_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with pytest.warns(UserWarning, match="there is no folder"):
        found = run(checkpoint=folder / "run", callback=lambda step: folder.rmdir() if step.number == 3 else None)
    assert same(found, run())


def test_good_checkpoints_are_written_without_warnings(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(checkpoint=tmp_path / "run", checkpoint_every=3)
