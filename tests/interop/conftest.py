"""Import torch before the tests of this folder are collected."""

import torch

# On a small machine, several threads per test process starve each other.
torch.set_num_threads(1)
