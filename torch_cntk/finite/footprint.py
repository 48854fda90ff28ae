"""The memory of a training, counted before it is allocated."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from torch_cntk._internal.memory import require_bytes
from torch_cntk.finite.model import Model
from torch_cntk.finite.options import Training
from torch_cntk.layers import Layer, Weighted

__all__ = ["HINT", "require_memory", "saved_bytes"]

_MOMENTS: dict[str, int] = {
    "Adadelta": 2,
    "Adagrad": 1,
    "Adam": 2,
    "AdamW": 2,
    "Adamax": 2,
    "NAdam": 2,
    "RAdam": 2,
    "RMSprop": 1,
    "Rprop": 2,
}
"""Numbers that optimisers of torch keep for each weight; of others nothing is known, and 0 is assumed."""

_WORTH_TRACING = 1 << 28
"""Bytes of feature maps above which they are counted exactly. The first pass on the meta device loads parts of torch
that take a second, which a small training would notice; 256 MB are free wherever networks are trained."""

_MAPS = 8
"""Feature maps held for each output channel of a weight layer: at most the padded input, the output, the activation,
the mask and the concatenation, some of them twice. Decides only whether to count exactly."""


def require_memory(net: Layer, training: Training, shape: tuple[int, ...], target: Tensor) -> None:
    """Refuse a training that would not fit.

    Counted is what is held at once for certain: the copy of the weights, the optimiser's moments, the best weights so
    far if they are kept, and the larger one of the gradients and the feature maps saved for the way back. Work space
    of single operations comes on top.

    Args:
        net: the network.
        training: how it is trained.
        shape: of its input, [channels, *size].
        target: the image to fit; its dtype and device are those of the training.

    Raises:
        OutOfMemoryError: the device has less memory free than that.
    """
    itemsize = target.dtype.itemsize
    weights = itemsize * sum(parameter.numel() for parameter in net.parameters())
    moments = _MOMENTS.get(getattr(training.optimiser, "__name__", ""), 0)
    kept = weights * (1 + moments + (training.iterate == "best"))
    what = f"the training of {weights // itemsize:,} weights on {math.prod(shape[1:]):,} pixels"
    require_bytes(kept + weights, what, lambda free: HINT, target.device)
    maps = 0 if training.compile else _map_bytes(net, training, shape, target)
    require_bytes(kept + max(weights, maps), what, lambda free: HINT, target.device)


HINT = "take a narrower network or a smaller image"


def _map_bytes(net: Layer, training: Training, shape: tuple[int, ...], target: Tensor) -> int:
    """Bytes of the feature maps that a pass saves, counted without computing any; 0 where that is not worth it."""
    itemsize = target.dtype.itemsize
    channels = sum(m.out_channels or 0 for m in net.modules() if isinstance(m, Weighted))
    if _MAPS * itemsize * channels * math.prod(shape[1:]) < _WORTH_TRACING:
        return 0
    try:
        model = _without_numbers(net, training).to(dtype=target.dtype)
        count = saved_bytes(model, torch.empty(1, *shape, dtype=target.dtype, device="meta"))
    except Exception:  # a layer of the user's own that looks at its numbers; then only weights are counted
        return 0
    # Autocast saves most of them in half as many bytes.
    return count // 2 if training.autocast else count


def _without_numbers(net: Layer, training: Training) -> Model:
    """The model that is trained, on the meta device; the network's weights are not copied."""
    tensors = [*net.parameters(), *net.buffers()]
    memo: dict[int, object] = {}
    for tensor in tensors:
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = torch.nn.Parameter(empty) if isinstance(tensor, torch.nn.Parameter) else empty
    twin = copy.deepcopy(net, memo)
    for module in twin.modules():
        if isinstance(module, Weighted):
            # Nothing is to be converted.
            module.parameterisation = training.parameterisation
    return Model(twin, training).to("meta")


def saved_bytes(net: torch.nn.Module, batch: Tensor) -> int:
    """Bytes that a pass through a network saves for the way back, beside its weights; each storage counts once."""
    weights = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        # The output holds all that was saved, so that no address is given twice.
        output = net(batch)
    del output
    return sum(sizes.values())
