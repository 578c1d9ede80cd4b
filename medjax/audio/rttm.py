"""Read RTTM (Rich Transcription Time Marked): the turns of speakers in recordings.

The format is described in the evaluation plan of NIST's RT-09, appendix A; medkit reads and writes
it by ``medkit.io.rttm``, whose names are used here.
"""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Turn", "read_rttm"]

LOGGER = logging.getLogger("medjax")

_TURN = "SPEAKER"
_OTHERS = {
    "A/P", "CB", "EDIT", "FILLER", "IP", "LEXEME", "NON-LEX", "NON-SPEECH", "NOSCORE",
    "NO_RT_METADATA", "SEGMENT", "SPKR-INFO", "SU",
}  # fmt: skip
_NB_FIELDS = (9, 10)  # older files lack the look-ahead time
_MISSING = "<NA>"
_EXPECTED = (
    "SPEAKER, FILE, CHANNEL, START and DURATION in seconds, <NA>, <NA>, SPEAKER's name, <NA>, <NA>"
)


class Turn(NamedTuple):
    """A stretch of a recording in which a speaker speaks.

    Attributes
    ----------
    file : str
        The recording, as the file names it.
    start, duration : float
        Its start in the recording and its duration, in seconds.
    speaker : str
        Name of the speaker.

    Examples
    --------
    >>> Turn("visit1", 1.5, 2.0, "nurse").end
    3.5
    """

    file: str
    start: float
    duration: float
    speaker: str

    @property
    def end(self) -> float:
        """End of the turn in the recording, in seconds."""
        return self.start + self.duration


def read_rttm(path: str | os.PathLike[str], *, encoding: str = "utf-8") -> list[Turn]:
    r"""Read the turns of speakers from RTTM.

    Turns may overlap. Lines of other types than ``SPEAKER``, and turns of no duration, are left
    out; a warning to the logger ``medjax`` says how many. Unlike medkit's, a file may be about
    several recordings.

    Parameters
    ----------
    path : path
        A file, or a folder of which all ``.rttm`` files are read.
    encoding : str
        Encoding of the files, which may have a byte order mark.

    Returns
    -------
    list of Turn
        The turns in the order of the files.

    Raises
    ------
    ValueError
        If there is no ``.rttm`` file in the folder, a file is not in the encoding, or a line has
        another form.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "visit.rttm")
    ...     _ = file.write_text("SPEAKER visit 1 0.500 2.250 <NA> <NA> nurse <NA> <NA>\n")
    ...     read_rttm(file)
    [Turn(file='visit', start=0.5, duration=2.25, speaker='nurse')]
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".rttm")
        if not files:
            raise ValueError(f"{path}: found no .rttm file, expected some; pass their folder")
    left_out: Counter[str] = Counter()
    turns = [turn for file in files for turn in _turns(file, encoding, left_out)]
    if left_out:
        counts = "; ".join(f"{kind}: {count}" for kind, count in left_out.items())
        LOGGER.warning("%s: left out %s", path, counts)
    return turns


def _turns(file: Path, encoding: str, left_out: Counter[str]) -> Iterator[Turn]:
    try:
        text = file.read_text(encoding).lstrip("\ufeff")
    except (UnicodeError, LookupError) as error:
        msg = f"{file}: found {error}, expected text in {encoding}; pass the encoding of the file"
        raise ValueError(msg) from error
    for number, line in enumerate(text.split("\n"), start=1):
        cells = line.split()
        if not cells or cells[0].startswith(";;"):
            continue
        where = f"{file}:{number}"
        if len(cells) not in _NB_FIELDS or cells[0] not in {_TURN, *_OTHERS}:
            msg = (
                f"{where}: found {len(cells)} fields, {line!r:.120}, expected 9 or 10: {_EXPECTED}"
            )
            raise ValueError(msg)
        if cells[0] != _TURN:
            left_out[f"lines of the type {cells[0]}"] += 1
            continue
        start, duration = _seconds(cells[3], "start", where), _seconds(cells[4], "duration", where)
        if cells[7] == _MISSING:
            msg = f"{where}: found {_MISSING} as speaker, expected a name; write one in field 8"
            raise ValueError(msg)
        if duration == 0:
            left_out["turns of no duration"] += 1
            continue
        yield Turn(cells[1], start, duration, cells[7])


def _seconds(cell: str, name: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        msg = f"{where}: found {cell!r} as {name}, expected a number of seconds from 0"
        raise ValueError(msg)
    return value
