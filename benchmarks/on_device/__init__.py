"""The contenders of `accelerator.py`: the same random encoder, on batches of one shape."""
