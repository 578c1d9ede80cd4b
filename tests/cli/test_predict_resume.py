"""``python -m medjax predict`` started again: killed, with more notes, with others than before."""

import json

import pytest
from sample_notes import TEXTS
from tqdm.auto import tqdm

from medjax.cli import journal, outputs, prediction
from medjax.text.writers import write_brat


@pytest.mark.parametrize("name", ["jsonl", "doccano", "csv"])
def test_a_file_continues_where_a_killed_start_left_it(predict, monkeypatch, notes, name):
    monkeypatch.setattr(prediction, "_CHUNK_NOTES", 2)
    (notes / "bad.txt").write_bytes(b"\xff")
    (notes / "y.txt").write_bytes(b"\xff")
    _, whole = predict("tagger", "--format", name, output="whole")
    commit, commits = outputs.FileOutput.commit, []

    def killed(output, read):
        commits.append(read)
        if len(commits) == 2:  # after records that the journal does not have
            output._records.flush()
            output.skipped.lines.flush()
            raise KeyboardInterrupt
        commit(output, read)

    monkeypatch.setattr(outputs.FileOutput, "commit", killed)
    assert predict("tagger", "--format", name)[0] == 130
    status, folder = predict("tagger", "--format", name)
    assert status == 0
    assert len(commits) == 2 + 3  # of 4 chunks, the first is not predicted again
    for file in (next(whole.glob("predictions.*")), whole / "skipped.tsv"):
        assert (folder / file.name).read_bytes() == file.read_bytes()


def written_by(monkeypatch):
    """Return the list to which the names of the notes that are written are added."""
    written, write = [], outputs.FileOutput.write

    def counted(output, place, predicted):
        written.append(predicted.document.name)
        write(output, place, predicted)

    monkeypatch.setattr(outputs.FileOutput, "write", counted)
    return written


@pytest.mark.parametrize("name", ["jsonl", "doccano", "csv"])
def test_notes_that_have_changed_are_predicted_again(predict, notes, name, monkeypatch, caplog):
    monkeypatch.setattr(prediction, "_CHUNK_NOTES", 2)
    (notes / "ward" / "d.txt").write_bytes(b"fi\xe8vre")
    _, folder = predict("tagger", "--format", name)
    assert folder.joinpath("skipped.tsv").read_text().startswith("ward/d\tnot UTF-8")
    written = written_by(monkeypatch)
    for file, text, names in (
        ("ward/d.txt", "fever", ["ward/c", "ward/d", "z"]),  # from the chunk of the note on
        ("z.txt", "drug and chest pain", ["z"]),
        ("a.txt", "cough", list(TEXTS)),
    ):
        written.clear()
        (notes / file).write_text(text)
        assert predict("tagger", "--format", name)[0] == 0
        assert written == names
        assert f"predicting again from note {6 - len(names)} on" in caplog.text
        _, whole = predict("tagger", "--format", name, output=f"whole-{file.replace('/', '-')}")
        for path in (next(whole.glob("predictions.*")), whole / "skipped.tsv"):
            assert (folder / path.name).read_bytes() == path.read_bytes()
    written.clear()
    predict("tagger", "--format", name)
    assert written == []


def test_a_start_that_is_killed_as_it_goes_back_is_repeated(predict, notes, monkeypatch):
    monkeypatch.setattr(prediction, "_CHUNK_NOTES", 2)
    _, folder = predict("tagger", "--format", "csv")
    (notes / "ward" / "c.txt").write_text("fever")

    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prediction, "_read_chunk", killed)
        assert predict("tagger", "--format", "csv")[0] == 130
    assert predict("tagger", "--format", "csv")[0] == 0
    _, whole = predict("tagger", "--format", "csv", output="whole")
    assert [f.read_bytes() for f in folder.glob("*.csv")] == [
        f.read_bytes() for f in whole.glob("*.csv")
    ]


def test_relations_in_a_file_are_predicted_again_if_entities_have_changed(
    predict, tagged, tmp_path, monkeypatch
):
    source = tmp_path / "annotated"
    write_brat(tagged[:1], source)
    predict("relations", "--format", "csv", source=source)
    written = written_by(monkeypatch)
    lines = (source / "a.ann").read_text().splitlines(keepends=True)
    (source / "a.ann").write_text("".join(lines[:-1]))
    predict("relations", "--format", "csv", source=source)
    assert written == ["a"]


def test_a_journal_of_an_older_version_goes_on(predict, notes, monkeypatch, caplog):
    _, folder = predict("tagger", "--format", "csv")
    file = folder / "progress.json"
    content = json.loads(file.read_text())
    del content["contents"], content["marks"]
    file.write_text(json.dumps(content))
    written = written_by(monkeypatch)
    (notes / "zz.txt").write_text("cough")
    assert predict("tagger", "--format", "csv")[0] == 0
    assert written == ["zz"]
    assert "progress.json is of an older version" in caplog.text
    (notes / "zz.txt").write_text("fever")
    written.clear()
    predict("tagger", "--format", "csv")
    assert written[-1] == "zz"


def test_a_journal_does_not_grow_with_the_notes(predict, notes, monkeypatch):
    monkeypatch.setattr(journal, "_NB_MARKS", 4)
    monkeypatch.setattr(prediction, "_CHUNK_NOTES", 1)
    for number in range(9):
        (notes / f"more{number}.txt").write_text("no fever")
    _, folder = predict("tagger", "--format", "csv")
    marks = json.loads((folder / "progress.json").read_text())["marks"]
    assert [mark["nb_notes"] for mark in marks] == [1, 11, 13]
    written = written_by(monkeypatch)
    (notes / "z.txt").write_text("fever")
    predict("tagger", "--format", "csv")
    assert written == ["z"]


def test_the_bar_of_a_start_that_goes_on_begins_where_it_does(predict, notes, monkeypatch):
    bars = []

    def shown(**settings):
        bars.append((settings["initial"], settings["total"]))
        return tqdm(**settings)

    monkeypatch.setattr(prediction, "tqdm", shown)
    predict("tagger", "--format", "csv")
    (notes / "zz.txt").write_text("cough")
    predict("tagger", "--format", "csv")
    assert bars == [(0, 5), (5, 6)]


def test_only_notes_that_are_not_complete_are_predicted_again(predict, notes, monkeypatch):
    _, folder = predict("tagger")
    before = {file: file.read_bytes() for file in folder.rglob("*.ann")}
    (folder / "b.ann").unlink()
    (notes / "z.txt").write_text("drug and chest pain")  # changed since
    (notes / "new.txt").write_text("cough")
    written = []
    write = outputs.BratOutput.write

    def counted(output, place, predicted):
        written.append(predicted.document.name)
        write(output, place, predicted)

    monkeypatch.setattr(outputs.BratOutput, "write", counted)
    assert predict("tagger")[0] == 0
    assert written == ["b", "new", "z"]
    assert (folder / "b.ann").read_bytes() == before[folder / "b.ann"]
    assert (folder / "z.txt").read_text() == "drug and chest pain"


def test_relations_are_predicted_again_if_entities_have_changed(predict, tagged, tmp_path):
    source = tmp_path / "annotated"
    write_brat(tagged[:1], source)
    _, folder = predict("relations", source=source)
    lines = (source / "a.ann").read_text().splitlines(keepends=True)
    (source / "a.ann").write_text("".join(lines[:-1]))
    predict("relations", source=source)
    found = (folder / "a.ann").read_text().splitlines(keepends=True)
    assert [line for line in found if line.startswith("T")] == lines[:-1]


def test_notes_that_come_before_the_journal_are_refused(predict, notes, capsys):
    predict("tagger", "--format", "csv")
    (notes / "0.txt").write_text("cough")
    assert predict("tagger", "--format", "csv")[0] == 2
    assert "predictions of the first 5 notes, but these are others now" in capsys.readouterr().err
