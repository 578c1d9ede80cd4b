"""The example clinical_ner.py with a tiny model, on its corpus, split files and BRAT; resuming."""

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "clinical_ner.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def main(example):
    return example["main"]


@pytest.fixture(scope="module")
def load_corpus(example):
    return example["load_corpus"]


def write_brat(folder, *names, encoding="utf-8"):
    for name in names:
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Fièvre. Note {path.stem}.\n", encoding=encoding)
        path.with_suffix(".ann").write_text("T1\tSign 0 6\tFièvre\n", encoding=encoding)


@pytest.fixture
def run(main, tiny_folder, tmp_path):
    """Return a function that runs the example with the tiny model."""

    def run(*arguments: str):
        common = ["--model", str(tiny_folder), "--output", str(tmp_path / "out")]
        return main([*common, "--max-length", "64", "--batch-size", "8", *arguments])

    return run


@pytest.fixture
def columns(tmp_path, corpus):
    """A file of 24 sentences in CoNLL columns."""
    path = tmp_path / "corpus.tsv"
    source = Path(EXAMPLE.parent / "data" / "synthetic_clinical" / "train.tsv").read_text()
    path.write_text("\n\n".join(source.split("\n\n")[:24]) + "\n")
    return path


def test_it_writes_its_files_prints_a_report_and_resumes(run, columns, tmp_path, capsys):
    first = run("--data", str(columns), "--epochs", "1")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "checkpoints",
        "metrics.csv",
        "metrics.jsonl",
        "learning_curves.png",
        "report.html",
        "report.txt",
        "split.json",
    }
    printed = capsys.readouterr().out
    for expected in ("19 / 2 / 3 sentences", "f1-score", "spurious", "Three sentences", "stent"):
        assert expected in printed
    resumed = run("--data", str(columns), "--epochs", "2", "--resume")
    assert resumed.history[0] == first.history[0]
    assert len(resumed.history) == 2
    assert len((tmp_path / "out" / "metrics.csv").read_text().splitlines()) == 3
    with pytest.raises(ValueError, match="expected the 19 / 2 / 3 with seed 0"):
        run("--data", str(columns), "--resume", "--seed", "1")


@pytest.mark.slow  # 25 s; the commands read BRAT, too
def test_it_reads_brat(run, tmp_path):
    folder = tmp_path / "brat"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"No chest pain. He takes aspirin. Day {number}.\n")
        (folder / f"{number}.ann").write_text(
            "T1\tProblem 3 13\tchest pain\nT2\tTreatment 24 31\taspirin\n"
        )
    result = run("--data", str(folder), "--epochs", "1", "--scheme", "bilou")
    assert result.best_checkpoint is not None


def test_entities_that_overlap_are_kept(load_corpus, tmp_path):
    write_brat(tmp_path, *"abc")
    for file in tmp_path.glob("*.ann"):
        file.write_text("T1\tSign 0 6\tFièvre\nT2\tWord 0 6\tFièvre\n")
    assert [len(part[0].entities) for part in load_corpus([tmp_path], 0)] == [2] * 3


def test_nested_brat_folders_are_one_corpus(load_corpus, tmp_path):
    write_brat(tmp_path, *(f"ward{number % 3}/deep/{number}" for number in range(10)))
    corpus = load_corpus([tmp_path], 0)
    assert [len(part) for part in corpus] == [16, 2, 2]
    names = {document.name for part in corpus for document in part}
    assert {"ward0/deep/0#1", "ward1/deep/4#2"} < names
    of_parts = [{document.name.split("#")[0] for document in part} for part in corpus]
    assert sum(map(len, of_parts)) == 10  # no note is in two parts


def test_subfolders_named_after_splits_are_the_splits(load_corpus, tmp_path):
    write_brat(tmp_path, "train/a/1", "train/b/2", "dev/3", "test/4")
    corpus = load_corpus([tmp_path], 0)
    names = [[document.name for document in part] for part in corpus]
    assert names == [["a/1#1", "a/1#2", "b/2#1", "b/2#2"], ["3#1", "3#2"], ["4#1", "4#2"]]


def test_splits_are_found_by_stem_or_suffix(load_corpus, tmp_path):
    for name in ("corpus.train", "Dev.conll", "corpus.test", "._train.conll"):
        (tmp_path / name).write_text(f"{name} O\n\n2. O\nNo O\n")
    corpus = load_corpus([tmp_path], 0)
    # Sentences of a file in columns are not split again.
    assert [[document.text for document in part] for part in corpus] == [
        ["corpus.train", "2. No"],
        ["Dev.conll", "2. No"],
        ["corpus.test", "2. No"],
    ]


def test_brat_files_can_be_splits(load_corpus, tmp_path):
    write_brat(tmp_path, "train", "devel", "test")
    assert [part[0].name for part in load_corpus([tmp_path], 0)] == ["train#1", "devel#1", "test#1"]


def test_the_error_names_a_missing_split(load_corpus, tmp_path):
    write_brat(tmp_path, "train/1", "test/2")
    with pytest.raises(ValueError, match="0 files or folders named devel or dev or valid"):
        load_corpus([tmp_path], 0)


def test_the_encoding_is_an_argument(example, load_corpus, tmp_path):
    write_brat(tmp_path, "train", "devel", "test", encoding="cp1252")
    with pytest.raises(ValueError, match='pass encoding="cp1252"'):
        load_corpus([tmp_path], 0)
    args = example["parse"](["--data", str(tmp_path), "--encoding", "cp1252"])
    corpus = load_corpus(args.data, 0, args.encoding)
    assert [part[0].text for part in corpus] == ["Fièvre."] * 3


def test_an_empty_data_folder_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 files or folders named train or training; expected"):
        run("--data", str(tmp_path / "empty"))


def split_files(folder, train, test):
    """Write three files in columns; devel has a sentence more than test."""
    files = {"train.tsv": train, "devel.tsv": test and f"{test}Well\tO\n\n", "test.tsv": test}
    for name, lines in files.items():
        (folder / name).write_text(lines)
    return [str(folder / name) for name in files]


TRAIN = "No\tO\nchest\tB-Problem\npain\tI-Problem\n\n" * 8


def test_labels_missing_from_training_are_reported_and_count_as_missed(run, tmp_path, capsys):
    test = "pain\tB-Problem\naspirin\tB-Drug\n\n"
    run("--data", *split_files(tmp_path, TRAIN, test), "--epochs", "1")
    printed = capsys.readouterr().out
    assert "devel has labels that train lacks, which count as missed: ['Drug']" in printed
    report = (tmp_path / "out" / "report.txt").read_text().splitlines()
    (drug,) = (line.split() for line in report[:8] if line.startswith("Drug"))
    assert drug == ["Drug", "0.0000", "0.0000", "0.0000", "1"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (TRAIN, "", "8 / 0 / 0 items .* there is none in devel"),
        ("No\tO\npain\tO\n\n" * 8, TRAIN, "no entity in its train split"),
    ],
)
def test_an_unusable_corpus_is_refused_before_training(train, test, message, run, tmp_path):
    with pytest.raises(ValueError, match=message):
        run("--data", *split_files(tmp_path, train, test))
    assert not (tmp_path / "out").exists()


def test_two_sentences_are_too_few_for_three_splits(run, tmp_path):
    path = tmp_path / "two.tsv"
    path.write_text("pain\tB-Problem\n\nfever\tB-Problem\n\n")
    with pytest.raises(ValueError, match=r"1 / 1 / 0 items .* there is none in test"):
        run("--data", str(path))
