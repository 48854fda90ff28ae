"""``python -m torch_cntk`` is ``torch-cntk``."""

from __future__ import annotations

import sys

from torch_cntk.cli.main import command

if __name__ == "__main__":
    sys.exit(command())
