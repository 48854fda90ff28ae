"""Every network of ``tests.helpers.networks``."""

from __future__ import annotations

import pytest

import torch_cntk as tc
from tests.helpers.networks import NETS


@pytest.fixture(params=NETS, ids=[name.replace(", ", "-").replace(" ", "_") for name in NETS])
def net(request: pytest.FixtureRequest) -> tc.Sequential:
    return NETS[request.param]
