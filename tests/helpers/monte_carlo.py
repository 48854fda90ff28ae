"""NTKs of finite networks, drawn many times."""

from __future__ import annotations

import torch
from torch.func import functional_call, jacrev, vmap

import torch_cntk as tc

BATCH = 8


def empirical_ntks(net: tc.Layer, z: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Gram matrices [count, pixels, pixels] of the Jacobian of output channel 0, for freshly drawn weights."""

    def output(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(net, parameters, (z[None],))[0, 0].flatten()

    def gram(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        jacobians = [jacobian.flatten(1) for jacobian in jacrev(output)(parameters).values()]
        return sum(jacobian @ jacobian.T for jacobian in jacobians)

    scales: dict[str, float | torch.Tensor] = {}
    for path, layer in net.named_modules():
        if isinstance(layer, tc.layers.Weighted) and layer.parameterisation == "standard":
            weight, bias = layer._scales()
            scales |= {f"{path}.weight".lstrip("."): weight, f"{path}.bias".lstrip("."): bias}
    batches = []
    for start in range(0, count, BATCH):
        draws = min(BATCH, count - start)
        weights = {
            # Scales and offsets of normalisations start at 1 and 0.
            name: parameter.detach().expand(draws, *parameter.shape)
            if name.endswith(("scale", "offset"))
            else scales.get(name, 1.0) * torch.randn(draws, *parameter.shape, generator=generator, dtype=z.dtype)
            for name, parameter in net.named_parameters()
        }
        batches.append(vmap(gram)(weights))
    return torch.cat(batches)
