"""Messages between processes by ``torch.distributed``: whatever ends a wait before its time becomes one sentence."""

from __future__ import annotations

import gc
import math
import pickle
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from torch_cntk._internal.kinds import raise_any
from torch_cntk._internal.roll_call import announce, missing
from torch_cntk._internal.same import differences, listed
from torch_cntk._internal.shared_errors import known_to_all

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["Messages"]

T = TypeVar("T")


class Messages:
    """What a process exchanges with the others of its group; ``Mesh`` says what the arguments are."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        device: torch.device | str = "cpu",
        *,
        timeout: float = math.inf,
        group: dist.ProcessGroup | None = None,
        store: Store | None = None,
    ) -> None:
        self.rank = rank
        self.size = size
        self.device = torch.device(device)
        self.timeout = timeout
        self.bytes_sent = 0
        self._group = group
        self._store = store
        self._apart = False
        self._ended: str | None = None

    def swap(self, parcels: Mapping[int, Tensor], lengths: Mapping[int, int], like: Tensor) -> dict[int, Tensor]:
        """Send vectors to some ranks, and receive what those send that have one for this rank.

        Nobody waits for ranks with which it exchanges nothing.

        Args:
            parcels: vectors, by the rank that each is for.
            lengths: of the vectors that are to come, by the rank that sends each.
            like: a tensor of the dtype and on the device of all vectors.

        Returns:
            the vectors that came, by rank.
        """
        found = {rank: like.new_empty(length) for rank, length in lengths.items()}
        # As bytes, since not every kind of group knows every dtype.
        work = [dist.P2POp(dist.irecv, found[rank].view(torch.uint8), rank, self._group) for rank in sorted(found)]
        for rank in sorted(parcels):
            work.append(dist.P2POp(dist.isend, parcels[rank].contiguous().view(torch.uint8), rank, self._group))
            self.bytes_sent += parcels[rank].nbytes

        def exchange() -> None:
            for request in dist.batch_isend_irecv(work):
                request.wait()

        if work:
            self._call("an exchange between neighbours", exchange)
        return found

    def _gathered(self, tensor: Tensor, what: str) -> list[Tensor]:
        """The tensors of all ranks, of one shape and dtype."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self._call(what, lambda: dist.all_gather(found, tensor.contiguous(), group=self._group))
        self.bytes_sent += (self.size - 1) * tensor.nbytes
        return found

    def _exchanged(self, value: T, what: str) -> list[T]:
        """The objects of all ranks."""
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        lengths = [int(length) for length in self._gathered(torch.tensor([len(own)]), what)]
        padded = torch.nn.functional.pad(own, (0, max(lengths) - len(own)))
        found = zip(self._gathered(padded, what), lengths, strict=True)
        return [pickle.loads(bytes(entry[:length].numpy())) for entry, length in found]

    def _raise_unlike(self, kind: str, what: str) -> None:
        """Say what each rank has, on all of them.

        Raises:
            ValueError: so it is.
        """
        name = f"kind of tensor in {what}".replace(" ", "_")
        error = known_to_all(ValueError(differences(self._exchanged({name: kind}, "a comparison of kinds"))))
        raise error

    def _check_alike_kinds(self, kind: str, refusal: Exception | None, what: str) -> None:
        """Refuse together what any rank refuses, and kinds that differ: eight bytes to each other rank.

        Raises:
            Exception: the refusal, where all ranks have the same.
            ValueError: kinds differ.
        """
        if self.size > 1:
            own = torch.tensor([zlib.crc32(kind.encode())])
            if not all(torch.equal(one, own) for one in self._gathered(own, what)):
                self._raise_unlike(kind, what)
        raise_any(refusal)

    def _call(self, what: str, collective: Callable[[], object]) -> None:
        """Run a collective; whatever ends it before its time becomes one sentence.

        Raises:
            RuntimeError: another rank has ended or has not come within the timeout, or an earlier collective failed.
        """
        if self._apart:
            raise RuntimeError(f"expected no {what.split(' ', 1)[1]} of all ranks within a rank's own work")
        if self._ended is None:
            try:
                collective()
            except RuntimeError as error:
                self._ended = str(error).split("\n")[0]
            else:
                return
            self._ended = self._end(what, self._ended)
        raise RuntimeError(self._ended)

    def _end(self, what: str, reason: str) -> str:
        """Leave the group, so that no other rank waits for this one; the sentence that says why."""
        announce(self._store, self.rank)
        group, self._group = self._group, None
        if group is not None and dist.is_initialized():
            dist.destroy_process_group(group)
        del group  # connections are closed when the last reference is gone, and other ranks stop waiting
        start = f"{what[0].upper()}{what[1:]} among {self.size} ranks failed on rank {self.rank}"
        absent = missing(self._store, self.size)
        gc.collect()  # whatever else still refers to the group
        if absent:
            return f"{start}: {listed(absent)} ended, or did not come within {self.timeout:g} s"
        return f"{start} within {self.timeout:g} s: {reason}"
