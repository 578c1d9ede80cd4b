"""Audio: who speaks when."""

from medjax.audio.rttm import Turn, read_rttm

__all__ = ["Turn", "read_rttm"]
