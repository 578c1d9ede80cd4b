"""Everyone who trains the same random encoder on batches of one shape, for `accelerator.py`."""
