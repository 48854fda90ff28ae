"""What to write instead of what has no rule."""

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = ["hint_for"]

_nn = torch.nn


def _of_dimensions(name: str) -> tuple[type[_nn.Module], ...]:
    return tuple(getattr(_nn, f"{name}{n}d") for n in (1, 2, 3) if hasattr(_nn, f"{name}{n}d"))


_PAD = "pad circularly or with zeros"
_POOL = "take average pooling, or a strided convolution"
_HEAD = (
    "of heads, torch.nn.Flatten, flatten(1), view(x.size(0), -1), AdaptiveAvgPool(1) and the mean over all pixels have "
    "a rule"
)
_BATCH = "statistics over the batch have no rule: normalise over the channels (LayerNorm on channels-last images)"
_ATTENTION = (
    "attention has no rule, as with logits over sqrt(d) it stays random in the limit: take torch_cntk.SelfAttention, "
    "whose logits are divided by d"
)
_RECURRENT = "recurrent layers have no rule: one-dimensional convolutions have"
_KINK = "its kinks have no exact rule: take SiLU, ReLU or Hardtanh"
_RANDOM = "noise has no rule: call eval(), or take Dropout"
_GATE = (
    "its halves are channels of one layer: take two layers and their product, as in a(x) * torch.sigmoid(b(x)), "
    "which is torch_cntk.Product"
)
_CHANNELS = "a function across the channels has no rule: apply it to the network's output"
_REARRANGE = "moving channels into pixels or back has no rule: upsample, then convolve, or take a strided convolution"

_MODULES: Mapping[tuple[type[_nn.Module], ...], str] = {
    (*_of_dimensions("ReflectionPad"), *_of_dimensions("ReplicationPad")): _PAD,
    _of_dimensions("ConstantPad"): _PAD,
    (*_of_dimensions("MaxPool"), *_of_dimensions("LPPool"), _nn.FractionalMaxPool2d, _nn.FractionalMaxPool3d): _POOL,
    _of_dimensions("MaxUnpool"): "upsample (nearest or bilinear)",
    (*_of_dimensions("AdaptiveMaxPool"), _nn.Unflatten): _HEAD,
    (*_of_dimensions("InstanceNorm"), _nn.GroupNorm): "statistics over the pixels of an image have no rule: normalise "
    "over the channels (LayerNorm on channels-last images)",
    (_nn.SyncBatchNorm,): _BATCH,
    (_nn.RMSNorm, _nn.LocalResponseNorm, _nn.CrossMapLRN2d): "only LayerNorm over the channels of channels-last images "
    "has a rule",
    (_nn.PReLU,): "a slope that is trained has no rule: take LeakyReLU, or freeze it (requires_grad_(False))",
    (_nn.Hardswish, _nn.Hardsigmoid, _nn.Softshrink, _nn.Hardshrink, _nn.Threshold): _KINK,
    (_nn.RReLU,): _RANDOM,
    (_nn.AlphaDropout, _nn.FeatureAlphaDropout): _RANDOM,
    (_nn.GLU,): _GATE,
    (_nn.Softmax, _nn.Softmax2d, _nn.LogSoftmax, _nn.Softmin): _CHANNELS,
    (_nn.PixelShuffle, _nn.PixelUnshuffle, _nn.ChannelShuffle, _nn.Fold, _nn.Unfold): _REARRANGE,
    (_nn.MultiheadAttention, _nn.Transformer, _nn.TransformerEncoder, _nn.TransformerEncoderLayer): _ATTENTION,
    (_nn.TransformerDecoder, _nn.TransformerDecoderLayer): _ATTENTION,
    (_nn.RNN, _nn.LSTM, _nn.GRU, _nn.RNNCell, _nn.LSTMCell, _nn.GRUCell): _RECURRENT,
    (_nn.Embedding, _nn.EmbeddingBag): "give one-hot vectors or features instead",
    (_nn.Bilinear, _nn.CosineSimilarity, _nn.PairwiseDistance): "a network has one input: concatenate them before",
}
_DROPOUTS = ("dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout")
_FUNCTIONS: Mapping[tuple[str, ...], str] = {
    ("getattr",): "only the shape of a feature map is known, and what it is of the input's",
    ("reshape", "view", "mean", "sum", "squeeze"): _HEAD,
    ("max_pool1d", "max_pool2d", "max_pool3d", "boolean_dispatch", "fn"): _POOL,
    ("batch_norm",): _BATCH,
    ("layer_norm", "instance_norm", "group_norm", "normalize", "rms_norm"): "take torch.nn.LayerNorm over the channels "
    "of channels-last images",
    ("maximum", "minimum", "max", "min", "where", "pow"): "take an activation, a module or function of torch.nn",
    ("softmax", "log_softmax"): _CHANNELS,
    ("glu",): _GATE,
    ("matmul", "bmm", "imatmul", "einsum", "scaled_dot_product_attention"): _ATTENTION,
    ("pixel_shuffle", "chunk", "split", "roll", "unfold", "transpose", "unsqueeze", "stack"): _REARRANGE,
    ("detach", "detach_"): "it stops gradients, which the kernel of training all layers does not: leave it out",
    ("rand_like", "randn_like", "normal_", "bernoulli", "stochastic_depth", *_DROPOUTS): _RANDOM,
    ("to", "float", "double", "half", "type", "cuda", "cpu", "type_as"): "a network has one dtype and device: leave it "
    "out",
    ("setitem", "getitem"): "parts of a feature map have no rule: write the step for all of it",
    ("clamp", "clamp_", "clip", "clamp_min", "clamp_min_", "hardswish", "hardsigmoid"): _KINK,
}
_BY_MODULE = {kind: hint for kinds, hint in _MODULES.items() for kind in kinds}
_BY_FUNCTION = {name: hint for names, hint in _FUNCTIONS.items() for name in names}


def hint_for(kind: type[torch.nn.Module] | str) -> str:
    """What to write instead of a module of a class, or a function of a name; "" if nobody knows."""
    return _BY_FUNCTION.get(kind, "") if isinstance(kind, str) else _BY_MODULE.get(kind, "")
