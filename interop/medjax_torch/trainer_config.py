"""TrainerConfig, in medkit's module."""

from medjax.config import TrainerConfig as TrainerConfig

__all__ = ["TrainerConfig"]
