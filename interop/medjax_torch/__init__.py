"""medkit's PyTorch-facing training API over medjax."""
