"""RTTM: turns of speakers, what is left out, malformed lines."""

import re

import pytest

from medjax.audio import Turn, read_rttm
from medjax.text.readers import format_of

LINE = "SPEAKER visit 1 {} {} <NA> <NA> {} <NA> <NA>\n"
TURNS = [
    Turn("visit", 0.0, 2.5, "nurse"),
    Turn("visit", 2.25, 1.0, "doctor"),
    Turn("other", 1.0, 0.5, "nurse"),
]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        (tmp_path / name).write_bytes(content.encode("utf-8-sig"))
        return tmp_path / name

    return write


def text_of(turns):
    lines = ((t, LINE.format(t.start, t.duration, t.speaker)) for t in turns)
    return ";; a comment\n\n" + "".join(line.replace("visit", t.file) for t, line in lines)


def test_turns_of_several_recordings_and_folders(write, tmp_path):
    path = write("a.rttm", text_of(TURNS))
    assert read_rttm(path) == TURNS
    assert TURNS[1].end == 3.25
    write("b.RTTM", text_of(TURNS[:1]).replace("\n", "\r\n").replace(" ", "\t"))
    write("c.txt", "no turn")
    assert read_rttm(tmp_path) == [*TURNS, TURNS[0]]


def test_medkit_reads_the_same_turns(write, tmp_path):
    rttm = pytest.importorskip("medkit.io.rttm")
    path = write("a.rttm", "")
    path.write_text(text_of(TURNS[:2]).split("\n", 2)[2])
    rows = rttm.RTTMInputConverter._load_rows(path)
    found = [
        (r["file_id"], float(r["onset"]), float(r["duration"]), r["speaker_name"]) for r in rows
    ]
    assert found == [tuple(turn) for turn in read_rttm(path)]


def test_omissions_are_counted(write, caplog):
    other = "SPKR-INFO visit 1 <NA> <NA> <NA> unknown nurse <NA>\n"
    path = write("a.rttm", text_of(TURNS[:1]) + 2 * other + LINE.format(3, 0, "nurse"))
    assert read_rttm(path) == TURNS[:1]
    assert caplog.messages == [
        f"{path}: left out lines of the type SPKR-INFO: 2; turns of no duration: 1"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "SPEAKER visit 1 0 1\n",
            "found 5 fields, 'SPEAKER visit 1 0 1', expected 9 or 10: SPEAKER",
        ),
        (LINE.replace("SPEAKER", "Talker").format(0, 1, "a"), "found 10 fields, 'Talker visit"),
        (LINE.format(-1, 1, "a"), "found '-1' as start, expected a number of seconds from 0"),
        (LINE.format(0, "nan", "a"), "found 'nan' as duration, expected a number of seconds"),
        (LINE.format(0, "inf", "a"), "found 'inf' as duration, expected a number of seconds"),
        (LINE.format("1,5", 1, "a"), "found '1,5' as start, expected a number of seconds"),
        (LINE.format(0, 1, "<NA>"), "found <NA> as speaker, expected a name; write one in field 8"),
    ],
)
def test_the_error_names_a_malformed_line(write, line, message):
    path = write("a.rttm", text_of(TURNS[:1]) + line)
    with pytest.raises(ValueError, match=re.escape(f"{path}:4: {message}")):
        read_rttm(path)


def test_the_error_names_encodings_and_folders(write, tmp_path):
    with pytest.raises(ValueError, match=r"found no \.rttm file, expected some; pass their folder"):
        read_rttm(tmp_path)
    path = write("a.rttm", "")
    path.write_bytes(b"\xe9")
    with pytest.raises(ValueError, match=r"a\.rttm: found .*0xe9.*, expected text in utf-8; pass"):
        read_rttm(path)
    with pytest.raises(
        ValueError, match=r"turns of speakers, which medjax\.audio\.read_rttm reads"
    ):
        format_of(path)
