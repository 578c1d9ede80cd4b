"""Everyone who trains the same tagger on the same text: peers, the bare loops, and medjax."""

from contenders.work import CONTENDERS as CONTENDERS
from contenders.work import Work as Work
from contenders.work import run as run
