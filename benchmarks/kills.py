"""Kill ranks of a solve at random moments: ``python -m benchmarks.kills --count 200``.

``torchrun --max-restarts`` begins the ranks again, and they go on from the checkpoint. Every launch must end with the
bits of a run in which nobody died. Kills come at moments spread over the whole life of a group, from the start of its
processes, which are importing torch then, to their end.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Agent = subprocess.Popen[bytes]
"""A running torchrun."""
_POINTS, _WIDTH = 400, 12
"""Inputs and features of the small problem."""
_PAUSE, _SHORT = 0.02, 0.005
"""Seconds that each product takes longer, so that a kill finds the iteration under way; and where kills are many."""
_START, _SOLVE = 3.0, 1.0
"""Seconds that the start of the processes takes, about, and the solve with short pauses: most of what a kill costs is
the next start."""
_PATIENCE = 180.0
"""Seconds after which a launch that has not ended is taken to hang."""


@dataclass(frozen=True)
class Launch:
    """What became of one group.

    Attributes:
        kills: ranks that were killed.
        resumed: how often a group went on from a checkpoint.
        code: exit code of torchrun.
        seconds: that it took.
        weights: a checksum of the result, or None.
    """

    kills: int
    resumed: int
    code: int
    seconds: float
    weights: str | None


def solve(folder: Path, pause: float = _PAUSE) -> None:
    """What each rank does: solve a problem whose kernel is divided by rows, and write a checksum of the weights."""
    import torch

    import torch_cntk as tc
    from torch_cntk._internal.checkpoints import checksum

    mesh = tc.distributed.mesh(timeout=60)
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(_POINTS, _WIDTH, generator=draws, dtype=torch.float64)
    targets = torch.randn(2, _POINTS, generator=draws, dtype=torch.float64)
    net = tc.Sequential(tc.Linear(_WIDTH, 8), tc.ReLU(), tc.Linear(8, 1))
    path = folder / "solve.pt"
    (folder / f"begun {os.getpid()}").touch()
    if mesh.rank == 0 and path.exists():
        with (folder / "resumed").open("a") as file:
            file.write("x")
    solver = tc.ConjugateGradient(1e-10, preconditioner="jacobi", checkpoint=path, checkpoint_seconds=0.02)
    operator: Any = net.gram_operator(features, mesh=mesh)
    multiply = operator._multiply

    def slowed(images: torch.Tensor) -> torch.Tensor:
        time.sleep(pause)
        product: torch.Tensor = multiply(images)
        return product

    operator._multiply = slowed
    regression = tc.Regression(operator, torch.ones(_POINTS, dtype=torch.bool), 1e-3)
    solution = solver.solve(regression, targets)
    if mesh.rank == 0:
        (folder / "weights").write_text(f"{checksum(solution.weights)} after {solution.iterations} iterations")
    mesh.barrier()


@dataclass(frozen=True)
class Moment:
    """When a rank is killed: seconds after its group's start, or after the solve has begun."""

    seconds: float
    solving: bool

    def wait(self, folder: Path, group: Sequence[int]) -> None:
        """Until then; until the group has ended, at most."""
        while self.solving and not all((folder / f"begun {process}").exists() for process in group):
            if not any(Path(f"/proc/{process}").exists() for process in group):
                return
            time.sleep(0.005)
        time.sleep(self.seconds)


def command_line(ranks: int, restarts: int, folder: Path, *options: str, pause: float = _PAUSE) -> list[str]:
    """``torchrun`` with these options."""
    common = [f"--nproc-per-node={ranks}", f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    own = ["-m", "benchmarks.kills", "--solve", str(folder), "--pause", str(pause)]
    return [sys.executable, "-m", "torch.distributed.run", *(options or ("--standalone",)), *common, *own]


def launch(
    folder: Path,
    ranks: int,
    moments: Sequence[Moment],
    draws: random.Random,
    *,
    launcher_lives: float | None = None,
    pause: float = _PAUSE,
) -> Launch:
    """Start a group, and kill one of its ranks at each moment after its (re)start.

    Args:
        folder: where the checkpoint and the result go.
        ranks: processes.
        moments: one a kill.
        draws: choose the rank.
        launcher_lives: seconds after the begin of the solve at which torchrun and all ranks are killed, as by a batch
            system or a power cut.
        pause: seconds that each product takes longer.
    """
    command = command_line(ranks, len(moments), folder, pause=pause)
    with (folder / "log").open("ab") as log:
        agents = [subprocess.Popen(command, stdout=log, stderr=log)]
        if launcher_lives is None:
            return _watched(folder, agents, ranks, moments, draws)
        with _ending(agents):
            Moment(launcher_lives, True).wait(folder, _new_group(agents, set(), ranks))
        return _told(folder, 0, agents[0].wait(), 0.0)


def launch_on_hosts(folder: Path, hosts: Hosts, moment: Moment, draws: random.Random) -> Launch:
    """As ``launch``, with a rank and a launcher on each of two hosts, which meet by torchrun's rendezvous."""
    agents = []
    with (folder / "log").open("ab") as log:
        for number, (name, address) in enumerate(zip(hosts.names, hosts.addresses, strict=True)):
            meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={hosts.addresses[0]}:29400", "--rdzv-id=kills"]
            # The name of this machine, by which torchrun would know the first host, is that of both.
            meeting.append(f"--rdzv-conf=is_host={'false' if number else 'true'}")
            options = ["--nnodes=2", f"--local-addr={address}", *meeting]
            command = ["ip", "netns", "exec", name, *command_line(1, 3, folder, *options)]
            environment = os.environ | {"GLOO_SOCKET_IFNAME": _DEVICE}
            agents.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        return _watched(folder, agents, 2, [moment], draws)


@dataclass(frozen=True)
class Hosts:
    """Two network namespaces that see each other and nothing else."""

    names: tuple[str, str]
    addresses: tuple[str, str]


_DEVICE = "veth0"


@contextmanager
def two_hosts() -> Iterator[Hosts | None]:
    """Make two hosts with network addresses of their own (Linux, root); None where that is not permitted."""
    unique = f"{os.getpid()}-{random.randrange(1 << 16):x}"
    names = (f"tc-{unique}-a", f"tc-{unique}-b")
    addresses = ("10.77.0.1", "10.77.0.2")
    made: list[str] = []
    try:
        try:
            for name in names:
                _ip("netns", "add", name)
                made.append(name)
            _ip("-n", names[0], "link", "add", _DEVICE, "type", "veth", "peer", "name", _DEVICE, "netns", names[1])
            for name, address in zip(names, addresses, strict=True):
                _ip("-n", name, "address", "add", f"{address}/24", "dev", _DEVICE)
                for device in ("lo", _DEVICE):
                    _ip("-n", name, "link", "set", device, "up")
        except subprocess.CalledProcessError:
            yield None
            return
        yield Hosts(names, addresses)
    finally:
        for name in made:
            _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    """Run the command ip.

    Raises:
        CalledProcessError: it failed, mostly as the user may not do it.
    """
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _watched(
    folder: Path, agents: Sequence[Agent], ranks: int, moments: Sequence[Moment], draws: random.Random
) -> Launch:
    """Kill as planned, and wait for the end."""
    start = time.monotonic()
    kills, codes = 0, [-int(signal.SIGALRM)]
    with _ending(agents), suppress(subprocess.TimeoutExpired):
        before: set[int] = set()
        for moment in moments:
            group = _new_group(agents, before, ranks)
            moment.wait(folder, group)
            kills += _killed(draws.sample(group, len(group)))
            before |= set(group)
        codes = [agent.wait(_PATIENCE) for agent in agents]
    return _told(folder, kills, min(codes) or max(codes), time.monotonic() - start)


def _told(folder: Path, kills: int, code: int, seconds: float) -> Launch:
    resumed, result = folder / "resumed", folder / "weights"
    return Launch(
        kills,
        resumed.stat().st_size if resumed.exists() else 0,
        code,
        seconds,
        result.read_text() if result.exists() else None,
    )


def children(process: int) -> list[int]:
    """Processes that a process has started (Linux)."""
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _new_group(agents: Sequence[Agent], before: set[int], ranks: int) -> list[int]:
    """The processes of the next group; none if a launcher has ended."""
    until = time.monotonic() + _PATIENCE
    while all(agent.poll() is None for agent in agents) and time.monotonic() < until:
        group = [child for agent in agents for child in children(agent.pid) if child not in before]
        if len(group) >= ranks:
            return group
        time.sleep(0.02)
    return []


def _killed(group: Sequence[int]) -> int:
    """Kill the first process that is still there; 1 if there was one."""
    for process in group:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return 1
    return 0


@contextmanager
def _ending(agents: Sequence[Agent]) -> Iterator[None]:
    """Leave nothing running, whatever happens."""
    try:
        yield
    finally:
        for agent in agents:
            for process in [*children(agent.pid), agent.pid] if agent.poll() is None else ():
                _killed([process])
            agent.wait()


def report(count: int, ranks: int, together: int, seed: int) -> bool:
    """Kill so often; whether all launches ended with the bits of the unbroken one."""
    draws = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        whole = launch(_fresh(name, "whole"), ranks, (), draws, pause=_SHORT)
        print(f"unbroken: {whole.seconds:.1f} s, {whole.weights}, exit code {whole.code}", flush=True)
        fine = whole.code == 0
        kills = launches = resumed = 0
        while kills < count and fine:
            moments = [moment_of(draws) for _ in range(min(together, count - kills))]
            folder = _fresh(name, str(launches))
            found = launch(folder, ranks, moments, draws, pause=_SHORT)
            fine = found.code == 0 and found.weights == whole.weights
            kills, launches, resumed = kills + found.kills, launches + 1, resumed + found.resumed
            print(f"{kills} kills, {launches} launches, resumed {resumed} times; {found.seconds:.1f} s", flush=True)
            if not fine:
                print(f"exit code {found.code}, {found.weights}\n{(folder / 'log').read_text()}")
    print(f"seed {seed}: {'the same bits after each' if fine else 'FAILED in the last'} of {kills} kills")
    return fine


def moment_of(draws: random.Random) -> Moment:
    """Three of four while the solve goes on, the others at any moment from the start of the processes."""
    solving = draws.random() < 0.75
    return Moment(draws.uniform(0, _SOLVE if solving else _START + _SOLVE), solving)


def _fresh(name: str, part: str) -> Path:
    folder = Path(name) / part
    folder.mkdir()
    return folder


def main() -> None:
    """Kill, or be one of those that are killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--together", type=int, default=20, help="kills in one launch, one a restart")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--solve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pause", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.solve is not None:
        solve(options.solve, options.pause)
    else:
        sys.exit(0 if report(options.count, options.ranks, options.together, options.seed) else 1)


if __name__ == "__main__":
    main()
