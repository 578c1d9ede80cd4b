"""Makes `components` importable from every test: this folder is put on the path by pytest."""
