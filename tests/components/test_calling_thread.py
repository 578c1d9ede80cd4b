"""Loading a component leaves the CPU running programs in the thread that calls them."""

import os
import subprocess
import sys

SCRIPT = """
import sys
import jax, jax.numpy as jnp
from medjax.components import TokenClassification
TokenClassification.from_pretrained(sys.argv[1], ["Sign"])
for _ in range(3):
    print(jax.jit(lambda x: jnp.sort(x * x))(jnp.arange(3e6)).is_ready())
"""


def test_a_model_is_loaded_before_the_mesh_is_made(tiny_folder):
    name = "JAX_CPU_ENABLE_ASYNC_DISPATCH"
    environment = {key: value for key, value in os.environ.items() if key != name}
    command = [sys.executable, "-c", SCRIPT, str(tiny_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["True"] * 3
