"""The processes ("ranks") that work on one problem, and how they talk: a thin layer over ``torch.distributed``.

It adds three promises to what torch gives. Sums are taken in the order of the ranks, so that their bits depend neither
on timing nor on the length of the tensor. A rank waits for a stated time at most, and one sentence says what ended its
wait. An error on one rank is raised on all of them.
"""

from __future__ import annotations

import itertools
import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from torch_cntk._internal.kinds import kind_of_numbers, kind_of_rows, kind_of_vector, pickled, raise_any
from torch_cntk._internal.messages import Messages
from torch_cntk._internal.same import checksum, differences, told_each
from torch_cntk._internal.shared_errors import as_told, is_known_to_all, known_to_all

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["Mesh", "current", "is_known_to_all", "joined"]

T = TypeVar("T")

_RECORD, _HEAD = 512, 8
"""Bytes of what opens a sum, and of the checksum of the tensor's kind at its begin. What has room behind it goes with
it, whole from every rank to every other one: for so little, only the number of messages counts."""
_SMALL = 1 << 10
"""Numbers likewise, that go after it."""


class Mesh(Messages):
    """A group of processes, each with a number (its rank), that call the same functions in the same order.

    A mesh of one process needs no ``torch.distributed``: there is nobody to talk to, and every method returns what it
    was given. Vectors are replicated: each rank holds all of them, and what is divided is work.

    A mesh belongs to its processes: a copy is the mesh itself, and a pickled one is, where it is read, the mesh of the
    process that reads it.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: where this process computes.
        timeout: seconds for which a rank waits for the others, at most.
        bytes_sent: that this rank has sent to others so far, as the messages' lengths say; without their headers.
    """

    _deals = 0
    """How many times work was dealt."""

    @classmethod
    def alone(cls, device: torch.device | str = "cpu") -> Mesh:
        """The mesh of one process."""
        return cls(device=device)

    def __repr__(self) -> str:
        return f"Mesh(rank={self.rank}, size={self.size}, device='{self.device}')"

    def __copy__(self) -> Mesh:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Mesh:
        return self

    def __reduce__(self) -> tuple[Callable[[], Mesh], tuple[()]]:
        return current, ()

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The process group; None of a mesh of one process."""
        return self._group

    @property
    def device_mesh(self) -> DeviceMesh | None:
        """The same ranks as a ``DeviceMesh`` of one axis, for torch's own functions; None of a mesh of one process."""
        if self._group is None:
            return None
        from torch.distributed.device_mesh import DeviceMesh

        return DeviceMesh.from_group(self._group, self.device.type, list(range(self.size)))

    # Who does what.

    def share(self, n: int, multiple: int = 1) -> slice:
        """The part of n rows that this rank works on: contiguous, near-equal, empty where ranks outnumber rows.

        Args:
            n: number of rows.
            multiple: boundaries between shares are multiples of this, so that they fall between blocks of rows.
        """
        return self.shares(n, multiple)[self.rank]

    def shares(self, n: int, multiple: int = 1) -> list[slice]:
        """The parts of all ranks, one behind the other; see ``share``."""
        blocks = -(-n // multiple)
        edges = [min(multiple * (blocks * rank // self.size), n) for rank in range(self.size + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    def dealt(self, n: int) -> Iterator[int]:
        """Numbers from 0 to n - 1, each to one rank: the next one to whoever asks.

        For parts of work of which nobody knows how long they take: no rank has nothing to do while another one has
        several left. Every rank calls this, in the same order. Where there is no store to ask, as in a group that the
        user has made, ranks take turns.
        """
        self._deals += 1
        if self.size == 1 or self._store is None:
            yield from range(self.rank, n, self.size)
            return
        name = f"torch_cntk/dealt/{self._deals}"
        while (number := self._store.add(name, 1) - 1) < n:
            yield number

    # Collectives: every rank calls them, in the same order.

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all ranks, on each of them, added in the order of the ranks.

        All ranks get the same bits, which depend on the tensors alone. Each sends 2 (size - 1) / size times its tensor.

        Args:
            tensor: of one shape, dtype and kind of device on all ranks; it is left alone.

        Raises:
            TypeError: it is no tensor of numbers, on any rank.
            ValueError: it is of another shape, dtype or kind of device on some rank.
        """
        kind, refusal = kind_of_numbers(tensor)
        if self.size == 1:
            raise_any(refusal)
            return tensor
        flat = torch.empty(0) if refusal else tensor.contiguous().flatten()
        found = self._opened(flat, kind)
        # All ranks have the same kind here, so that all of them raise it.
        raise_any(refusal)
        if found is None and len(flat) <= _SMALL:
            found = self._gathered(flat, "a sum")
        if found is not None:
            return _added(found).reshape(tensor.shape)
        length = -(-len(flat) // self.size)
        padded = torch.nn.functional.pad(flat, (0, length * self.size - len(flat)))
        parts = torch.empty_like(padded)
        self._call("a sum", lambda: dist.all_to_all_single(parts, padded, group=self._group))
        self.bytes_sent += (self.size - 1) * length * padded.element_size()
        own = _added(list(torch.split(parts, length)))
        return torch.cat(self._gathered(own, "a sum"))[: len(flat)].reshape(tensor.shape)

    def _opened(self, flat: Tensor, kind: str) -> list[Tensor] | None:
        """Make sure that all ranks have vectors of one kind, and exchange them where they are small and on the CPU.

        Raises:
            ValueError: the kinds differ.
        """
        record = torch.zeros(_RECORD, dtype=torch.uint8)
        record[:_HEAD] = torch.tensor([zlib.crc32(kind.encode())]).view(torch.uint8)
        fits = flat.device.type == "cpu" and flat.nbytes <= _RECORD - _HEAD
        if fits:
            record[_HEAD : _HEAD + flat.nbytes] = flat.view(torch.uint8)
        found = self._gathered(record, "a sum")
        if not all(torch.equal(one[:_HEAD], record[:_HEAD]) for one in found):
            self._raise_unlike(kind, "a sum")
        if not fits:
            return None
        return [one[_HEAD : _HEAD + flat.nbytes].view(flat.dtype) for one in found]

    def gather(self, part: Tensor, n: int, multiple: int = 1) -> Tensor:
        """All rows [n, ...], on each rank, from the parts that ``share(n, multiple)`` has given to the ranks.

        Args:
            part: [rows of this rank, ...], perhaps none; the other axes and the dtype are the same on all ranks.
            n: number of rows of all ranks together.
            multiple: see ``share``.

        Raises:
            TypeError: it is no tensor, on any rank.
            ValueError: the part of some rank has another number of rows than its share, or other columns or another
                dtype or kind of device than that of another rank.
        """
        shares = self.shares(n, multiple)
        counts = [share.stop - share.start for share in shares]
        kind, refusal = kind_of_rows(part, n, counts[self.rank], self.rank)
        self._check_alike_kinds(kind, refusal, "a gathering of rows")
        if self.size == 1:
            return part
        longest, shape = max(counts), part.shape[1:]
        padded = part.new_zeros(longest, *shape)
        padded[: len(part)] = part
        if padded.numel() == 0:
            return part.new_zeros(n, *shape)
        # As bytes, since not every kind of group knows every dtype.
        found = self._gathered(padded.flatten().view(torch.uint8), "a gathering of rows")
        whole = [
            bytes_.view(part.dtype).view(longest, *shape)[:count] for bytes_, count in zip(found, counts, strict=True)
        ]
        return torch.cat(whole)

    def exchange(self, own: Tensor, lengths: Sequence[int], *, first: bool = False) -> list[Tensor] | None:
        """The vectors of all ranks.

        Args:
            own: of this rank, [n], of one dtype and kind of device on all ranks.
            lengths: of the vectors of all ranks.
            first: whether rank 0 alone wants them.

        Returns:
            one vector a rank; None where they were not wanted.

        Raises:
            TypeError: one is no tensor, on any rank.
            ValueError: a vector has another length than its own of ``lengths``, or these, the dtype or the kind of
                device differ between ranks.
        """
        kind, refusal = kind_of_vector(own, lengths, self.rank, self.size)
        self._check_alike_kinds(kind, refusal, "an exchange of blocks")
        if self.size == 1:
            return [own]
        padded = torch.nn.functional.pad(own, (0, max(lengths) - len(own)))
        if not first:
            found = self._gathered(padded, "an exchange of blocks")
        else:
            found = [torch.empty_like(padded) for _ in lengths] if self.rank == 0 else []
            wanted = found if self.rank == 0 else None
            self._call("an exchange of blocks", lambda: dist.gather(padded, wanted, dst=0, group=self._group))
            self.bytes_sent += 0 if self.rank == 0 else padded.nbytes
        return [part[:length] for part, length in zip(found, lengths, strict=True)] if found else None

    def broadcast(self, value: T) -> T:
        """What rank 0 passes, on all ranks; what others pass does not matter.

        Raises:
            TypeError: it cannot be pickled; on every rank.
        """
        if self.size == 1:
            return value
        found = self._exchanged(pickled(value) if self.rank == 0 else "", "a broadcast")[0]
        if isinstance(found, str):
            error = known_to_all(TypeError(found))
            raise error
        return cast("T", pickle.loads(found))

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            self._gathered(torch.zeros(1, dtype=torch.uint8), "a barrier")

    def agree(self, **values: object) -> None:
        """Make sure that all ranks have the same values.

        Args:
            **values: tensors and arrays, which are compared by shape, dtype and a checksum of their numbers, and
                anything whose representation tells what it is. Underscores in names are read as spaces.

        Raises:
            ValueError: some value differs, on every rank and in the same words, which name the ranks.
        """
        if self.size == 1:
            return
        with self.together():
            own = told_each(values)
        sentence = differences(self._exchanged(own, "a comparison of inputs"))
        if sentence:
            error = known_to_all(ValueError(sentence))
            raise error

    @contextmanager
    def together(self, what: str = "", same: Tensor | None = None) -> Iterator[None]:
        """Around work that a rank does by itself: an error on one rank is raised on all of them, at the block's end.

        An error that all ranks have alike is raised as it is. Others are raised, with the rank's number, as the same
        kind of error where that is one of Python's own or of this package. No collective may stand in the block: other
        ranks might wait there for a rank that has failed.

        Each rank sends three numbers: one for an error, one for what it does, and a checksum.

        Args:
            what: names the work. Ranks that have come to different works do not go on.
            same: what all ranks must have to the bit, a vector that each of them has computed, say.

        Raises:
            RuntimeError: a collective stands in the block, or ranks do different work, or have something else.
        """
        if self.size == 1:
            yield
            return
        if self._apart:
            raise RuntimeError("expected no block of work by rank within another one")
        error: Exception | None = None
        self._apart = True
        try:
            yield
        except Exception as caught:
            error = caught
        finally:
            self._apart = False
        own = torch.tensor([error is not None, zlib.crc32(what.encode()), 0 if same is None else checksum(same)])
        reports = torch.stack(self._gathered(own, "a look for errors"))
        if not bool(reports[:, 0].any()):
            self._check_alike(reports, what)
        else:
            self._raise_together(error)

    def _check_alike(self, reports: Tensor, what: str) -> None:
        """Make sure that all ranks do the same work on the same numbers; see ``together``.

        Raises:
            RuntimeError: they do not.
        """
        if bool((reports == reports[0]).all()):
            return
        if not bool((reports[:, 1] == reports[0, 1]).all()):
            works = self._exchanged({"work": what or "work of its own"}, "a comparison of works")
            sentence = differences(works)
        else:
            sentence = differences([{"numbers": f"checksum {number:x}"} for number in reports[:, 2].tolist()])
            sentence = f"in {what}: {sentence}; ranks need the same kind of processor and number of threads"
        error = known_to_all(RuntimeError(sentence))
        raise error

    def _raise_together(self, error: Exception | None) -> None:
        """Raise the first error that any rank has.

        Raises:
            Exception: so it is.
        """
        told_by = self._exchanged(None if error is None else (type(error), str(error)), "an exchange of errors")
        if error is not None and all(entry == told_by[0] for entry in told_by):
            known_to_all(error)
            raise error
        ranks = [rank for rank, entry in enumerate(told_by) if entry is not None]
        first: tuple[type[Exception], str] = told_by[ranks[0]]  # type: ignore[assignment]
        failure = known_to_all(as_told(*first, ranks[0]))
        raise failure from error


_current: Mesh | None = None


def current() -> Mesh:
    """The mesh of this process: of one process, unless there is a group."""
    return _current or Mesh.alone()


def joined(device: torch.device, timeout: float, store: Store | None) -> Mesh:
    """The mesh of the default process group, which is the same object for as long as the group lasts.

    Messages go through a group of their own, so that they do not get between those of the user.
    """
    global _current
    if _current is None or _current.device != device or _current.timeout != timeout or _current.group is None:
        backend = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
        group = dist.new_group(backend=backend, timeout=timedelta(seconds=timeout))
        assert isinstance(group, dist.ProcessGroup)
        _current = Mesh(dist.get_rank(), dist.get_world_size(), device, timeout=timeout, group=group, store=store)
    return _current


def _added(parts: list[Tensor]) -> Tensor:
    """Their sum, from the first to the last."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
