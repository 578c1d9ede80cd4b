"""The contenders of `compare.py`: medkit, its peers, bare loops and medjax."""

from contenders.work import CONTENDERS as CONTENDERS
from contenders.work import Work as Work
from contenders.work import run as run
