"""neural-tangents' side of the benchmarks: ``PYTHON benchmarks/stax_kernels.py HEAD SIDE COUNT``, by one that has it.

It makes the kernel of [3x3 conv, ReLU] x 4 and a head (float64, jit, one thread) and says "ready"; then it says the
processor seconds of one more run for each line that it reads. Heads:

* ``pixels``: a convolution; the kernel between all pixels of one image, SIDE x SIDE with three channels;
* ``pooled``, ``flat``: COUNT images against COUNT others;
* ``rows``: no images but COUNT rows of SIDE numbers against COUNT others, two hidden layers.
"""

from __future__ import annotations

import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"


def main(head: str, side: int, count: int) -> None:
    import jax
    import numpy as np
    from neural_tangents import stax

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_enable_x64", True)
    draw = np.random.RandomState(0)
    conv, relu = stax.Conv(1, (3, 3), padding="CIRCULAR"), stax.Relu()
    heads = {"pixels": [conv], "pooled": [stax.GlobalAvgPool()], "flat": [stax.Flatten()]}
    layers = [stax.Dense(1), relu, stax.Dense(1), relu, stax.Dense(1)] if head == "rows" else [conv, relu] * 4
    *_, kernel = stax.serial(*layers, *heads.get(head, []))
    computed = jax.jit(lambda x, y: kernel(x, y, "ntk"))
    shape = (count, side) if head == "rows" else (count, side, side, 3)
    x, y = draw.rand(*shape), None if head == "pixels" else draw.rand(*shape)
    computed(x, y).block_until_ready()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        computed(x, y).block_until_ready()
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
