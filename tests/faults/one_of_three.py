"""One of three processes that exchange arrays, of which number 2 is killed.

Run as ``python one_of_three.py ADDRESS NUMBER``.
"""

import os
import signal
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from medjax import distributed

if __name__ == "__main__":
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    distributed.initialize_distributed(sys.argv[1], 3, int(sys.argv[2]))
    own = int(sys.argv[2])
    with distributed.Together():
        for step in range(10_000):
            multihost_utils.process_allgather(np.ones(4))
            if own == 2 and step == 200:
                os.kill(os.getpid(), signal.SIGKILL)
