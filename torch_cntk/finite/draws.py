"""Random numbers of one run, from generators of its own: torch's global ones are neither read nor moved."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Draws"]


class Draws:
    """Two generators of one seed: on the CPU, whose numbers do not depend on the device, and on the device.

    The numbers are those that ``torch.manual_seed(seed)`` would give, but other threads and the caller's program do
    not see that they were drawn. On the CPU both generators are one.

    Attributes:
        cpu: the generator on the CPU.
        own: the generator on the device.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.cpu = torch.Generator("cpu").manual_seed(seed)
        self.own = self.cpu if device.type == "cpu" else torch.Generator(device).manual_seed(seed)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """U[0, 1), float64, on the CPU."""
        return torch.rand(shape, generator=self.cpu, dtype=torch.float64, device="cpu")

    def normal_like(self, tensor: Tensor) -> Tensor:
        """N(0, 1), of the shape, dtype, device and memory format of a tensor: ``torch.randn_like``."""
        return torch.empty_like(tensor, requires_grad=False).normal_(generator=self.own)

    def kept_(self, mask: Tensor, share: float) -> None:
        """Fill a mask of dropout in place: 1 / share where an entry is kept, which has that probability, else 0."""
        mask.bernoulli_(share, generator=self.own).div_(share)

    def state(self) -> tuple[Tensor, Tensor | None]:
        """States of both generators, on the CPU; that of the device is None where both are one."""
        return self.cpu.get_state(), None if self.own is self.cpu else self.own.get_state()

    def restore(self, cpu: Tensor, own: Tensor | None) -> None:
        """Go on from these states; one of another kind of device is left out."""
        self.cpu.set_state(cpu.cpu())
        if own is not None and self.own is not self.cpu:
            self.own.set_state(own.cpu())
