"""medjax's `TrainerConfig`, importable under medkit's module name."""

from medjax.config import TrainerConfig as TrainerConfig

__all__ = ["TrainerConfig"]
