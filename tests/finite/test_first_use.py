"""What the first use of a part costs and says, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAMS = {
    "a linearised network": "tc.linearise(rows)(torch.rand(4, 3))",
    "an empirical kernel by products": 'tc.empirical_ntk(rows, torch.rand(4, 3), method="products")',
    # What torch compiles with takes seconds to import.
    "a kernel between images": """
        images = tc.Sequential(tc.Conv2d(3, 4, 3), tc.ReLU(), tc.Flatten(), tc.Linear(64, 1))
        images.gram(torch.rand(2, 3, 4, 4))
        assert "torch._dynamo" not in sys.modules
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_first_use_warns_of_nothing(name: str) -> None:
    start = "import sys, torch, torch_cntk as tc\nrows = tc.Sequential(tc.Linear(3, 8), tc.ReLU(), tc.Linear(8, 1))\n"
    lines = [line.strip() for line in PROGRAMS[name].strip().splitlines()]
    command = [sys.executable, "-W", "error::FutureWarning", "-c", start + "\n".join(lines)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
