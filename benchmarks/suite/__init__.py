"""The main rows of the benchmarks as ratios, one number a row, to follow over commits with asv (see asv.conf.json)."""

import sys
from pathlib import Path

# asv imports this folder by itself, from elsewhere.
sys.path.insert(0, str(Path(__file__).parents[2]))
