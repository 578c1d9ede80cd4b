"""torch is imported before the tests of this folder are collected."""

import torch

# Two threads per test process starve each other on a small machine.
torch.set_num_threads(1)
