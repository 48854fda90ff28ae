"""Files appear whole or not at all, at the place and with the permissions that the user chose."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from torch_cntk._internal.files import check_writable, is_stream, writing

posix = pytest.mark.skipif(os.name != "posix", reason="of Unix")
unprivileged = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")


def write(path: Path | str, text: str = "new") -> None:
    with writing(path) as temporary:
        temporary.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@posix
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("links", [1, 3])
def test_links_are_followed(tmp_path: Path, links: int, there: bool) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "file.txt"
    if there:
        target.write_text("old")
    name = target
    for place in range(links):
        # Relative and absolute ones in turn.
        (tmp_path / f"link{place}").symlink_to(os.path.relpath(name, tmp_path) if place % 2 else name)
        name = tmp_path / f"link{place}"
    write(name)
    assert name.is_symlink()
    assert target.read_text() == "new"
    assert names(tmp_path / "real") == ["file.txt"]


@posix
def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "a")


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions(tmp_path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(mode)
        write(tmp_path / "old")
        write(tmp_path / "fresh")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o666 & ~umask


@posix
def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "old").touch(mode=0o600)
    with writing(tmp_path / "old") as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    os.chown(tmp_path / "old", 1234, 2345)
    write(tmp_path / "old")
    found = (tmp_path / "old").stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)


@unprivileged
def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "old").touch(mode=0o444)
    for attempt in (check_writable, write):
        with pytest.raises(PermissionError, match="read-only"):
            attempt(tmp_path / "old")


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "ü" * 125 + ".png", "a." + "b" * 253, "." + "c" * 254, "a" * 255])
def test_long_names(tmp_path: Path, name: str) -> None:
    check_writable(tmp_path / name)
    write(tmp_path / name)
    assert (tmp_path / name).read_text() == "new"
    assert names(tmp_path) == [name]


def test_names_that_are_too_long_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        check_writable(tmp_path / ("a" * 256))


@pytest.mark.parametrize("suffix", [".png", ".safetensors", ".csv", ".PNG", ""])
def test_the_suffix_says_the_format_to_whoever_writes(tmp_path: Path, suffix: str) -> None:
    with writing(tmp_path / f"file{suffix}") as temporary:
        assert temporary.suffix == (suffix or ".tmp")
        assert temporary.parent == tmp_path


@pytest.mark.parametrize("error", [ValueError("damaged"), KeyboardInterrupt(), SystemExit(3), OSError("odd")])
def test_what_fails_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(type(error)) as caught, writing(tmp_path / "file") as temporary:
        temporary.write_text("half of")
        raise error
    assert caught.value is error
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


# Pipes and devices.


@posix
def test_a_named_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe.png").read_text()))
    reader.start()
    assert is_stream(tmp_path / "pipe.png")
    write(tmp_path / "pipe.png", "x" * 100_000)
    reader.join(60)
    assert read == ["x" * 100_000]
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)
    assert names(tmp_path) == ["pipe.png"]


@posix
def test_standard_output_is_written_to_where_it_stands(tmp_path: Path) -> None:
    code = (
        "from torch_cntk._internal.files import writing\n"
        "print('before', flush=True)\n"
        "with writing('/dev/stdout') as t: t.write_text('new')\n"
        "print('after')"
    )
    for how in ("w", "a"):
        with (tmp_path / "out").open(how) as out:
            subprocess.run([sys.executable, "-c", code], stdout=out, check=True, timeout=300)
    assert (tmp_path / "out").read_text() == 2 * "before\nnewafter\n"


@posix
def test_the_null_device_stays_one() -> None:
    write("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="of Linux")
def test_a_full_device(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space is left on the disk for /dev/full") as caught:
        write("/dev/full", "x" * 100_000)
    assert caught.value.errno == errno.ENOSPC


# Full disks.

_LIMITED = """
import resource, sys
from pathlib import Path
from torch_cntk._internal.files import writing
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
told = {"OSError": None, "RuntimeError": RuntimeError, "Exception": Exception}[sys.argv[2]]
try:
    with writing(sys.argv[1]) as temporary:
        try:
            temporary.write_bytes(bytes(200_000))
        except OSError:
            if told is None:
                raise
            raise told("not written")
except OSError as error:
    print(type(error).__name__, error)
"""


@posix
@pytest.mark.parametrize("told", ["OSError", "RuntimeError", "Exception"])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, told: str) -> None:
    """A limit on the size of files stands for the full disk: the system refuses to write on in the same way.

    torch raises RuntimeError then, and safetensors an Exception of its own.
    """
    (tmp_path / "file").write_text("old")
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "file"), told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith("OSError [Errno 28] no space is left on the disk for ")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_an_error_on_a_disk_with_space_stays_what_it_was(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="something else"), writing(tmp_path / "file"):
        raise RuntimeError("something else")
    assert names(tmp_path) == []


# Hard kills.

_WRITER = """
import sys
from torch_cntk._internal.files import writing
print("ready", flush=True)
for k in range(10**9):
    with writing(sys.argv[1]) as temporary:
        with temporary.open("w") as file:
            for _ in range(20):
                file.write(str(k % 10) * 10_000)
"""


def killed(path: Path, delay: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    process.kill()
    process.wait(60)
    process.stdout.close()


def assert_whole_after_kills(folder: Path, count: int) -> None:
    path = folder / "file.txt"
    path.write_text("a" * 200_000)
    seed = random.randrange(2**32)
    delays = random.Random(seed)
    for _ in range(count):
        killed(path, delays.uniform(0, 0.05))
        text = path.read_text()
        assert len(text) == 200_000, seed
        assert len(set(text)) == 1, seed


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="of Unix")
def test_a_hard_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    assert_whole_after_kills(tmp_path, 20)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="of Unix")
def test_a_hundred_hard_kills(tmp_path: Path) -> None:
    assert_whole_after_kills(tmp_path, 100)
