"""The infinite autoencoder against its closed form by other code, and beside popularity on made-up clicks."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import Tensor

import torch_cntk as tc
from tests.helpers.theorem_1 import theorem_1
from torch_cntk.matrices import held_out_clicks
from torch_cntk.matrices.ranking import judged


def made_up_clicks(generator: torch.Generator, users: int = 120, items: int = 60) -> Tensor:
    """Users click what lies near them on a plane of tastes, and what is popular."""
    tastes, places = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in (users, items))
    liking = 5 * torch.exp(-2 * torch.cdist(tastes, places).square())
    popular = 0.5 * torch.randn(items, generator=generator, dtype=torch.float64)
    return torch.rand(users, items, generator=generator) < torch.sigmoid(liking + popular - 3)


def made(**options: Any) -> tc.InfiniteAutoencoder:
    return tc.InfiniteAutoencoder(**options)


def some_clicks(generator: torch.Generator) -> Tensor:
    clicks = torch.rand(9, 7, generator=generator) < 0.4
    clicks[:, 0] |= ~clicks.any(1)
    return clicks


@pytest.mark.parametrize("solver", ["auto", tc.ConjugateGradient(tolerance=1e-11)])
def test_scores_are_those_of_the_closed_form(solver: Any, generator: torch.Generator) -> None:
    clicks = some_clicks(generator)
    rows = clicks.numpy().astype(float)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    kernel = theorem_1(units @ units.T, 2)
    np.fill_diagonal(kernel, 3.0)
    expected = kernel @ np.linalg.solve(kernel + 0.7 * 3 * np.eye(9), rows)
    model = tc.InfiniteAutoencoder(2, ridge=0.7, solver=solver).fit(clicks)
    # Angles near 0 keep half of the digits in both codes.
    np.testing.assert_allclose(model.scores().numpy(), expected, atol=1e-6)
    new = np.array([[1, 0, 1, 0, 0, 0, 1.0]])
    between = theorem_1((new / 3**0.5) @ units.T, 2)
    told = between @ np.linalg.solve(kernel + 0.7 * 3 * np.eye(9), rows)
    np.testing.assert_allclose(model.scores(new).numpy(), told, atol=1e-6)
    order = [item for item in np.argsort(-told[0]) if not new[0, item]]
    assert model.recommend(clicks=new[0], k=3) == order[:3]


def test_recommendations_are_new_to_the_user(generator: torch.Generator) -> None:
    clicks = some_clicks(generator)
    model = tc.InfiniteAutoencoder(ridge=1.0).fit(clicks)
    for user in range(9):
        found = model.recommend(user, 7)
        assert sorted(found) == (~clicks[user]).nonzero()[:, 0].tolist()
        scores = model.scores()[user, found]
        assert bool((scores.diff() <= 0).all())


def test_it_beats_popularity() -> None:
    # A fixed seed, as a draw could always be unlucky.
    clicks = made_up_clicks(torch.Generator().manual_seed(0))
    known, hidden = held_out_clicks(clicks, seed=1)
    model = tc.InfiniteAutoencoder().fit(known)
    popular = known.double().mean(0).expand(clicks.shape).masked_fill(known, -torch.inf).topk(10).indices
    found = model.evaluate(hidden)
    assert found.ndcg > 1.2 * judged(popular, hidden).ndcg
    assert found.ndcg > 0.5 * max(ranking.ndcg for ranking in model.rankings_.values())
    assert model.ridge_ == max(model.rankings_, key=lambda ridge: model.rankings_[ridge].ndcg)


def test_rankings_by_hand() -> None:
    held = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
    lists = torch.tensor([[2, 1, 0], [0, 1, 2], [0, 1, 2], [4, 0, -1]])
    found = judged(lists, held)
    second, third = 1 / np.log2(3), 0.5
    whole = 1 + second
    expected = [(1 + third) / whole, 0, second / (whole + third)]
    assert found.ndcg == pytest.approx(np.mean(expected))
    assert found.hit_rate == pytest.approx(np.mean([1, 0, 1 / 3]))
    assert found.hits == pytest.approx(2 / 3)
    assert (found.k, found.users) == (3, 3)


def test_held_out_clicks_are_shares_of_each_user(generator: torch.Generator) -> None:
    clicks = torch.rand(50, 30, generator=generator) < torch.rand(50, 1, generator=generator)
    known, hidden = held_out_clicks(clicks, 0.3, seed=2)
    assert torch.equal(known | hidden, clicks)
    assert not bool((known & hidden).any())
    counts = clicks.sum(1)
    expected = torch.minimum((0.3 * counts).ceil(), (counts - 1).clamp_min(0))
    assert torch.equal(hidden.sum(1).double(), expected.double())


def test_clicks_of_every_kind(generator: torch.Generator) -> None:
    clicks = some_clicks(generator)
    scores = tc.InfiniteAutoencoder(ridge=1.0).fit(clicks).scores()
    array = clicks.numpy()
    ratings = np.where(array, 3.5, np.nan)
    for given in (array, array.astype(int), ratings, scipy.sparse.csr_array(array.astype(float)), array.tolist()):
        torch.testing.assert_close(tc.InfiniteAutoencoder(ridge=1.0).fit(given).scores(), scores)
    frame = pd.DataFrame(ratings, index=[f"u{n}" for n in range(9)], columns=[f"i{n}" for n in range(7)])
    model = tc.InfiniteAutoencoder(ridge=1.0).fit(frame)
    found = model.scores()
    assert list(found.index) == list(frame.index)
    np.testing.assert_allclose(found.to_numpy(), scores.numpy())
    assert all(name.startswith("i") for name in model.recommend("u3", 2))
    assert pickle.loads(pickle.dumps(model)).recommend("u3", 2) == model.recommend("u3", 2)
    nobody = pd.DataFrame(np.zeros((1, 7)), index=["new"], columns=frame.columns)
    # Of somebody without a click: what is popular.
    np.testing.assert_allclose(model.scores(nobody).to_numpy()[0], array.mean(0))


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda m, c: tc.InfiniteAutoencoder(ridge=0.0).fit(c), "expected ridge > 0"),
        (lambda m, c: made(ridge="best").fit(c), 'number or "cv"'),
        (lambda m, c: made(solver="fast").fit(c), 'expected solver to be "auto"'),
        (lambda m, c: tc.InfiniteAutoencoder().fit(torch.zeros(3, 4)), "at least one click"),
        (lambda m, c: tc.InfiniteAutoencoder().fit(torch.eye(4)), "a user with two clicks"),
        (lambda m, c: tc.InfiniteAutoencoder().fit(torch.ones(4)), "expected clicks \\[users, items\\]"),
        (lambda m, c: tc.InfiniteAutoencoder().scores(), "expected fit"),
        (lambda m, c: m.recommend("who"), "expected a user among the 9"),
        (lambda m, c: m.recommend(), "a user or clicks"),
        (lambda m, c: m.recommend(1, clicks=[0] * 7), "a user or clicks"),
        (lambda m, c: m.scores(torch.ones(2, 5)), "expected the 7 items"),
        (lambda m, c: m.evaluate(c), "expected a held-out click"),
        (lambda m, c: m.evaluate(c[:3]), "expected held-out clicks of shape"),
        (lambda m, c: m.recommend(1, 0), "at least 1"),
    ],
)
def test_bad_input_is_refused(work: Any, message: str, generator: torch.Generator) -> None:
    clicks = some_clicks(generator)
    with pytest.raises(ValueError, match=message):
        work(tc.InfiniteAutoencoder(ridge=1.0).fit(clicks), clicks)


def test_words_are_no_clicks() -> None:
    with pytest.raises(TypeError, match="expected clicks as booleans or numbers"):
        tc.InfiniteAutoencoder().fit(np.array([["a", "b"]]))
    with pytest.raises(TypeError, match="expected boolean clicks"):
        held_out_clicks(torch.ones(2, 2))
