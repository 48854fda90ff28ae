"""The main rows of the benchmarks as ratios, one number a row, to follow over commits with asv (see asv.conf.json)."""
