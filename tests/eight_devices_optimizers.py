"""Compares optimizers with a plain loop on eight forced CPU devices; prints how far they differ.

Run by test_optimizers.py in a process of its own, since the number of devices is fixed at start.
The names of the optimizers are its arguments.
"""

import json
import sys

import jax
from optax_optimizers import deviation

from medjax import sharding

if __name__ == "__main__":
    mesh = sharding.make_mesh()
    deviations = {name: deviation(name, mesh) for name in sys.argv[1:]}
    json.dump({"devices": jax.device_count(), "deviations": deviations}, sys.stdout)
