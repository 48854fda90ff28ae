"""``from_torch`` and ``to_torch``: the same function before and after, and the model left as it was."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import torch_cntk as tc
from fuzz.oracle import WrongError, require
from tests.helpers.strategies.modules import Model, models

__all__ = ["cases", "check"]

_DIGITS = {torch.float64: 1e-9, torch.float32: 2e-4}
"""What rounding may change, relative to the largest number of the output."""
_MOST_PIXELS = 64

cases = models()


def check(case: Model) -> None:
    """Convert there and back, and run all three."""
    module = case.module()
    given = case.input()
    expected = _output(module, given)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [inner.training for inner in module.modules()]
    net = tc.from_torch(module)
    same = all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    require(same and modes == [inner.training for inner in module.modules()], "the model was changed")
    if expected is None:
        return
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        found = net(given)
    _require_same(found, expected, case, "from_torch")
    try:
        again = tc.to_torch(net)
    except ValueError:
        again = None
    if again is not None:
        require(not any(type(m).__module__.startswith("torch_cntk") for m in again.modules()), "it is not plain torch")
        _require_same(_output(again, given), expected, case, "to_torch")
    _check_kernel(net, case)


def _output(module: torch.nn.Module, given: Tensor) -> Tensor | None:
    """What a model makes of an input; None where it cannot take one of this size."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of dropout
        try:
            output: Tensor = module(given)
        except (RuntimeError, ValueError, IndexError):
            return None
    return output


def _require_same(found: Tensor | None, expected: Tensor, case: Model, what: str) -> None:
    if found is None:
        raise WrongError(f"{what}: the result does not take the model's input")
    require(found.shape == expected.shape, f"{what}: the output has the shape {tuple(found.shape)}")
    error = float((found - expected).abs().max())
    bound = _DIGITS[case.dtype] * max(float(expected.abs().max()), 1e-3)
    require(error <= bound, f"{what}: the output is {error} off, allowed are {bound}")


def _check_kernel(net: tc.Layer, case: Model) -> None:
    """The kernel of what was converted is one."""
    if case.ndim == 0:
        inputs = case.input().double()
        matrix = net.gram(inputs)
    else:
        options: dict[str, Any] = {}
        kernel = net.kernel(tc.priors.Normal(0.3, 0.7), _output_size(net, case), **options)
        size = kernel.size or _output_size(net, case)
        if size is None or math.prod(size) > _MOST_PIXELS:
            return
        matrix = kernel.dense(size).reshape(math.prod(size), -1)
    require(torch.isfinite(matrix).all(), "the kernel is not finite")
    require((matrix - matrix.T).abs().max() <= 1e-12 * matrix.abs().max(), "the kernel is not symmetric")
    least = float(torch.linalg.eigvalsh(matrix)[0])
    require(least >= -1e-8 * float(matrix.abs().max()), f"the kernel has the eigenvalue {least}")


def _output_size(net: tc.Layer, case: Model) -> tuple[int, ...]:
    output = _output(net, case.input())
    assert output is not None
    return tuple(output.shape[2:])
