"""Training of finite networks."""

from __future__ import annotations

import dataclasses
import inspect
import math
import typing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.training import PRIOR, mask, network, photograph, run, same
from torch_cntk.finite.options import AS_GIVEN, AsGiven
from torch_cntk.finite.presets import PRESETS, preset
from torch_cntk.finite.training import Model
from torch_cntk.layers import Weighted


def test_training_fits_the_observed_pixels_and_keeps_them() -> None:
    image, observed = photograph(), mask()
    result = run(steps=300, lr=0.02, truth=image, measure_every=100)
    assert float(result.losses[-1]) < 0.02 * float(result.losses[0])
    assert torch.equal(result.image[:, observed], image[:, observed])
    assert torch.equal(result.image[:, ~observed], result.output[:, ~observed])
    assert result.status is tc.TrainingStatus.FINISHED
    assert len(result.losses) == 300
    assert [step for step, _, _ in result.psnr] == [100, 200, 300]
    assert result.psnr[-1][2] > result.psnr[0][2]
    # Better than the mean of the observed pixels.
    mean = image[:, observed].mean(1)[:, None, None].expand_as(image)
    filled, plain = ((values - image)[:, ~observed].square().mean() for values in (result.image, mean))
    assert filled < 0.5 * plain
    torch.testing.assert_close(result.model(result.input[None])[0], result.output)


def test_what_the_image_holds_elsewhere_does_not_matter() -> None:
    image = photograph()
    image[:, ~mask()] = float("nan")
    assert same(tc.train(network(), image, prior=PRIOR, steps=3), run(steps=3))
    assert torch.isfinite(tc.train(network(), image, prior=PRIOR, steps=3).image).all()


def test_train_lists_all_options() -> None:
    """Each field of ``Training`` is an argument of ``train`` that may be left out, described in its docstring."""
    fields = {field.name: typing.get_type_hints(tc.Training)[field.name] for field in dataclasses.fields(tc.Training)}
    hints, parameters = typing.get_type_hints(tc.train), inspect.signature(tc.train).parameters
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    assert tc.train.__doc__ is not None
    for name, hint in fields.items():
        assert hints[name] == hint | AsGiven
        assert parameters[name].default is AS_GIVEN
        assert f"        {name}: " in tc.train.__doc__


def test_options_take_the_place_of_those_of_a_training() -> None:
    given = tc.Training(steps=9, jitter=0.2, schedule="cosine", decay=None, iterate="average")
    whole = tc.Training(steps=4, jitter=0.2, iterate="average")
    # None says something of its own: no schedule.
    assert same(run(training=given, steps=4, schedule=None, decay=0.99), run(training=whole, steps=whole.steps))
    with pytest.raises(TypeError, match="expected training as a Training, got dict"):
        run(training={"steps": 3})


def test_the_network_is_not_changed() -> None:
    net: Any = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result: Any = run(net, parameterisation="standard", batch_norm=True)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not torch.equal(result.net.layers[-1].weight, net.layers[-1].weight)
    # A forward pass of the trained one has its normalisations.
    torch.testing.assert_close(result.model(result.input[None]), torch.sigmoid(result.net(result.input[None])))


def test_seeds_give_the_same_again_and_leave_torchs_alone() -> None:
    net = network()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = run(net, jitter=0.1, seed=5)
    assert torch.equal(torch.rand(3), expected)
    assert same(first, run(net, jitter=0.1, seed=5))
    assert not torch.equal(first.output, run(net, jitter=0.1, seed=6).output)


def test_nan_stops_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(
        tc.DivergedError, match=r"the loss became (nan|inf) at step \d+; try a lower lr \(it is 1e\+30\)"
    ):
        run(lr=1e30, head="none", optimiser=torch.optim.SGD, checkpoint=path, checkpoint_every=1)


def test_held_out_pixels_are_judged_by_and_not_trained_on() -> None:
    result = run(steps=60, holdout=0.4, iterate="best", lr=0.03)
    assert result.holdout_losses is not None
    assert result.best_step == int(result.holdout_losses.argmin())
    # The best iterate is the network as it was then.
    again = run(steps=max(result.best_step, 1), holdout=0.4, lr=0.03)
    if result.best_step:
        torch.testing.assert_close(result.output, again.output)
    early = run(steps=2000, holdout=0.4, patience=20, lr=0.05)
    assert early.status is tc.TrainingStatus.NO_PROGRESS
    assert len(early.losses) == early.best_step + 21


def test_average_is_that_of_the_outputs() -> None:
    outputs = []
    result = run(iterate="average", decay=None, burn_in=4, callback=lambda step: outputs.append(step.output.clone()))
    torch.testing.assert_close(result.output, torch.stack(outputs[4:]).mean(0))
    result = run(iterate="average", decay=0.5)
    weights = 0.5 ** torch.arange(11, -1, -1)
    expected = (weights[:, None, None, None] * torch.stack(outputs)).sum(0) / weights.sum()
    torch.testing.assert_close(result.output, expected)


def test_the_bar_shows_loss_and_psnr(capsys: pytest.CaptureFixture[str]) -> None:
    run(progress=True, truth=photograph(), measure_every=4, holdout=0.2)
    shown = capsys.readouterr().err
    for text in ("training: 100%", "12/12", "loss=", "held out=", "PSNR="):
        assert text in shown
    run()
    assert capsys.readouterr().err == ""


def test_callbacks_stop() -> None:
    result = run(callback=lambda step: step.number == 3)
    assert result.status is tc.TrainingStatus.STOPPED
    assert len(result.losses) == 3


def test_langevin_noise_has_its_size() -> None:
    net = network()
    still = run(net, steps=1, lr=1e-12, optimiser=torch.optim.SGD)
    moved = run(net, steps=1, lr=1e-12, optimiser=torch.optim.SGD, langevin=1e9)
    differences = torch.cat(
        [(a - b).flatten() for a, b in zip(moved.net.parameters(), still.net.parameters(), strict=True)]
    )
    # About 1,900 draws of standard deviation 1e-3.
    assert float(differences.detach().std()) == pytest.approx(1e-3, rel=0.1)


def test_batch_norm_follows_all_weight_layers_but_the_last() -> None:
    result: Any = run(batch_norm=True)
    assert len(result.model.norms) == sum(isinstance(m, Weighted) for m in result.net.modules()) - 1
    graph = tc.from_torch(tc.to_torch(network()))
    other: Any = run(graph, batch_norm=True)
    assert len(other.model.norms) == len(result.model.norms)


def test_trained_models_are_had_again_from_their_state(tmp_path: Path) -> None:
    options = tc.Training(steps=3, batch_norm=True, parameterisation="standard")
    result = run(training=options)
    torch.save(result.model.state_dict(), tmp_path / "model.pt")
    again = Model(network(), options)
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(again(result.input[None])[0], result.output)
    with pytest.raises(ValueError, match="expected a network without forward hooks"):
        tc.to_torch(result.net)
    plain = run(steps=3)
    torch.testing.assert_close(torch.sigmoid(tc.to_torch(plain.net)(plain.input[None]))[0], plain.output)


def test_sizes_that_do_not_fit_are_extended() -> None:
    image, observed = photograph(2, (7, 9)), mask((7, 9))
    result = tc.train(network(), image, observed, prior=PRIOR, steps=3)
    assert result.image.shape == image.shape
    assert result.input.shape == (3, 8, 10)


def test_one_and_three_dimensions(generator: torch.Generator) -> None:
    for ndim, size in ((1, (8,)), (3, (4, 2, 4))):
        net = tc.hourglass(1, 4, 2, channels=1, in_channels=2, ndim=ndim)
        image = torch.rand(1, *size, generator=generator)
        result = tc.train(net, image, torch.rand(size, generator=generator) < 2, prior=PRIOR, steps=3)
        assert result.image.shape == image.shape


def test_standard_and_ntk_parameterisation_start_with_the_same_function() -> None:
    first, second = (run(steps=1, parameterisation=name) for name in ("ntk", "standard"))
    torch.testing.assert_close(first.losses, second.losses)
    assert not torch.allclose(first.output, second.output)


def test_compiled_training_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler itself takes a minute; its front end, which has to understand the network and its hooks, seconds.
    # What it learnt from other tests' networks (sizes that vary) is forgotten first.
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    options: dict[str, Any] = {"steps": 3, "batch_norm": True, "jitter": 0.1}
    torch.testing.assert_close(run(**options, compile=True).output, run(**options).output)


def test_network_with_a_head_gets_no_second_one() -> None:
    net = network()
    ended = tc.Sequential(*net.layers, tc.Sigmoid())
    assert torch.equal(run(ended).output, run(net).output)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "expected steps to be at least 1"),
        ({"lr": 0}, ValueError, "expected lr above 0"),
        ({"lr": math.nan}, ValueError, "expected lr to be finite"),
        ({"optimiser": "adam"}, TypeError, "expected optimiser as a function"),
        ({"schedule": "linear"}, TypeError, "expected schedule as a function"),
        ({"head": "tanh"}, ValueError, "expected head to be one of sigmoid, none"),
        ({"holdout": 1.0}, ValueError, "expected holdout below 1"),
        ({"patience": 3}, ValueError, "expected a holdout above 0"),
        ({"iterate": "median"}, ValueError, "expected iterate to be one of"),
        ({"decay": 1.0}, ValueError, "expected decay between 0 and 1"),
        ({"burn_in": 12}, ValueError, "expected burn_in from 0"),
        ({"seed": 0.5}, TypeError, "expected seed to be an integer"),
        ({"parameterisation": "mup"}, ValueError, "expected parameterisation to be one of"),
        ({"measure_every": 0}, ValueError, "expected measure_every"),
        ({"stepps": 3}, TypeError, "stepps"),
    ],
)
def test_wrong_options_are_refused(options: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        run(**options)


def test_what_does_not_fit_is_refused() -> None:
    image, observed = photograph(), mask()
    for arguments, message in (
        ((network(), image * 3, observed), r"expected observed pixels in \[0, 1\] for the sigmoid head"),
        ((network(), image[None].expand(2, -1, -1, -1), observed), "expected one image"),
        ((network(3), image, observed), "expected an image of the network's 3 channels, got 2"),
        ((tc.Sequential(tc.ReLU()), image, observed), "expected a network with weights"),
    ):
        with pytest.raises(ValueError, match=message):
            tc.train(*arguments, prior=PRIOR, steps=1)
    with pytest.raises(TypeError, match="see from_torch"):
        tc.train(torch.nn.Conv2d(1, 1, 3), image, observed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a truth of the image's shape"):
        tc.train(network(), image, observed, prior=PRIOR, steps=1, truth=image[:1])
    with pytest.raises(ValueError, match="too few"):
        tc.train(network(), image, observed, prior=PRIOR, steps=1, holdout=1e-9)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train(name: Any) -> None:
    entry = preset(name)
    net = entry.network(channels=1)
    # Their width is the sources'; a narrow copy of the same shape is enough to run.
    narrow = tc.with_width(net, 4)
    image = photograph(1, (128, 128))
    result = tc.train(narrow, image, mask((128, 128)), prior=entry.prior, training=entry.training, steps=2, burn_in=0)
    assert torch.isfinite(result.losses).all()
    assert entry.training.batch_norm
    assert entry.source
    with pytest.raises(ValueError, match="expected one of the presets"):
        preset("unknown")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda(tmp_path: Path) -> None:
    image, observed = photograph().cuda(), mask().cuda()
    options: dict[str, Any] = {"prior": PRIOR, "steps": 12, "jitter": 0.1, "channels_last": True, "autocast": True}
    whole = tc.train(network(), image, observed, **options)
    assert whole.image.device.type == "cuda"
    # The same input and weights as on the CPU: the same first loss, up to bfloat16.
    assert float(whole.losses[0]) == pytest.approx(float(run(jitter=0.1).losses[0]), rel=0.1)
    tc.train(network(), image, observed, **{**options, "steps": 5}, checkpoint=tmp_path / "run.pt")
    resumed = tc.train(network(), image, observed, **options, checkpoint=tmp_path / "run.pt")
    torch.testing.assert_close(resumed.losses, whole.losses, rtol=0.05, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_of_branches_on_cuda() -> None:
    net = tc.hourglass(2, 4, 2)
    prior = tc.priors.Uniform(0, 1)
    here, there = (net.kernel(prior, device=device).dense((8, 8)).cpu() for device in ("cpu", "cuda"))
    torch.testing.assert_close(here, there, rtol=1e-11, atol=0)
    z = prior.sample(32, (8, 8))
    torch.testing.assert_close(
        tc.empirical_ntk(net.cuda(), z.cuda()).cpu(), tc.empirical_ntk(net.cpu(), z), rtol=1e-2, atol=1e-2
    )


def test_values_beside_nan_in_other_channels_are_kept() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(4))
    image[0, 2:4] = image[1, :, 5] = math.nan
    net = tc.Sequential(tc.Conv2d(2, 4, 3), tc.ReLU(), tc.Conv2d(4, 3, 1))
    result = tc.train(net, image, steps=2).image
    assert torch.equal(result[~image.isnan()], image[~image.isnan()])
    assert bool(result.isfinite().all())
