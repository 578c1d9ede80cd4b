"""No test writes compiled programs into the home of whoever runs it."""

import os

import jax

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # for the processes that tests start
jax.config.update("jax_enable_compilation_cache", False)
