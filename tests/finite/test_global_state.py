"""Training and empirical kernels leave torch's global state alone, and do not depend on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.training import mask, network, photograph, run, same
from torch_cntk.finite import expected_kernel


def small() -> tc.Sequential:
    return tc.Sequential(tc.Linear(3, 8), tc.ReLU(), tc.Dropout(0.5), tc.Linear(8, 2))


class StoppedError(Exception):
    pass


def stop(step: object) -> None:
    raise StoppedError


def failing(error: type[Exception], **options: Any) -> None:
    with pytest.raises(error):
        run(DROPPING, jitter=0.1, **options)


NET, DROPPING, ROWS = network(), network(dropout=0.2), torch.randn(4, 3)
CALLS: dict[str, Callable[[], Any]] = {
    "train": lambda: run(NET),
    "all noise": lambda: run(DROPPING, jitter=0.1, langevin=1.0, holdout=0.2, batch_norm=True),
    "normal prior": lambda: tc.train(NET, photograph(), mask(), prior=tc.priors.Normal(), steps=2),
    "interrupted": lambda: failing(StoppedError, callback=stop),
    "diverged": lambda: failing(tc.DivergedError, lr=1e30, head="none", optimiser=torch.optim.SGD),
    "refused": lambda: failing(ValueError, holdout=1e-9),
    "empirical": lambda: tc.empirical_ntk(small_net(), ROWS),
    "last layer": lambda: tc.empirical_ntk(small_net(), ROWS, kind="nngp"),
    "expected": lambda: expected_kernel(small_net(), ROWS, draws=3),
    "expected ntk": lambda: expected_kernel(small_net(), ROWS, kind="ntk", draws=3),
    "expected of torch's": lambda: expected_kernel(TORCHS, torch.zeros(2, 3), draws=3),
}
SMALL = small()
TORCHS: torch.nn.Module = torch.nn.Sequential(
    torch.nn.Linear(3, 4), torch.nn.Dropout(), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1)
)


def small_net() -> tc.Sequential:
    return SMALL


@pytest.mark.parametrize("name", CALLS)
def test_global_state_is_left_alone(name: Any) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    modes = [module.training for net in (SMALL, TORCHS, NET, DROPPING) for module in net.modules()]
    CALLS[name]()
    after = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert modes == [module.training for net in (SMALL, TORCHS, NET, DROPPING) for module in net.modules()]


def test_threads_beside_it_get_the_numbers_that_they_would_have_got() -> None:
    """The global generator belongs to all threads: none may see that another one trains."""
    torch.manual_seed(5)
    expected = torch.rand(40)
    torch.manual_seed(5)
    drawn = []
    # Draws between the steps, as another thread may.
    run(DROPPING, jitter=0.1, steps=40, callback=lambda step: drawn.append(torch.rand(1)))
    assert torch.equal(torch.cat(drawn), expected)


def test_trainings_in_several_threads_are_as_each_alone() -> None:
    seeds = (1, 2, 3)
    alone = [run(DROPPING, jitter=0.1, seed=seed) for seed in seeds]
    found: dict[int, tc.TrainingResult] = {}
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set():
            torch.rand(100)

    threads = [
        threading.Thread(target=lambda s=seed: found.update({s: run(DROPPING, jitter=0.1, seed=s)})) for seed in seeds
    ]
    noise = threading.Thread(target=draw)
    noise.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    noise.join()
    assert all(same(found[seed], result) for seed, result in zip(seeds, alone, strict=True))


def test_results_do_not_depend_on_global_state() -> None:
    image, observed = photograph(), mask()

    def train() -> tc.TrainingResult:
        return tc.train(DROPPING, image, observed, jitter=0.1, holdout=0.2, batch_norm=True, langevin=0.1, steps=5)

    expected = train()
    torch.manual_seed(123)
    torch.set_default_dtype(torch.float64)
    try:
        found = train()
    finally:
        torch.set_default_dtype(torch.float32)
    assert same(found, expected)


@pytest.mark.parametrize("shared", [False, True])
def test_dropout_draws_what_torchs_own_would(shared: Any) -> None:
    """Seeded as torch's global generator, the masks are torch's: also where one layer is passed twice."""
    torch.manual_seed(3)
    drop = tc.Dropout(0.3)
    net = tc.Sequential(tc.Conv2d(2, 3, 3), drop, tc.ReLU(), drop if shared else tc.Dropout(0.6), tc.Conv2d(3, 1, 3))
    image = torch.rand(1, 6, 8)
    result = tc.train(net, image, head="none", optimiser=torch.optim.SGD, lr=1e-30, steps=1, seed=9, iterate="average")
    torch.manual_seed(9)
    given = tc.priors.Uniform(0, 0.1).sample(2, (6, 8))
    assert torch.equal(result.input, given)
    expected = net.train()(given[None])[0]
    torch.testing.assert_close(result.output, expected.detach())
    # The trained network has ordinary dropout layers, without a trace of the masks.
    assert not any(module._forward_hooks for module in result.net.modules())
    assert torch.equal(result.net.eval()(given[None]), net.eval()(given[None]))
