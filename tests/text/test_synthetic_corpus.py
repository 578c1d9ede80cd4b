import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from medjax.text.readers import read_documents
from medjax.text.tagging import tags_to_spans

DATA = Path(__file__).parents[2] / "examples" / "data"
FOLDER = DATA / "synthetic_clinical"


def test_the_script_writes_the_files():
    path = DATA / "make_synthetic_clinical.py"
    spec = importlib.util.spec_from_file_location("make_synthetic_clinical", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.tsv")}
    assert module.corpus() == written


@pytest.mark.parametrize(("part", "size"), [("train", 600), ("devel", 150), ("test", 150)])
def test_the_readme_states_the_sizes(part, size):
    documents = read_documents(FOLDER / f"{part}.tsv")
    assert len(documents) == size
    counts = Counter(entity.label for document in documents for entity in document.entities)
    row = (
        f"| `{part}.tsv` | {size} | {counts['Problem']} Problem, {counts['Treatment']} Treatment, "
    )
    assert row + f"{counts['Test']} Test |" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_tags_are_well_formed_iob2():
    for path in FOLDER.glob("*.tsv"):
        for sentence in path.read_text(encoding="utf-8").strip().split("\n\n"):
            tags = [line.split("\t")[1] for line in sentence.split("\n")]
            assert tags_to_spans(tags, "iob2") == tags_to_spans(tags, "conlleval")


def test_some_entities_of_the_test_split_do_not_occur_in_training():
    def words(part):
        return [
            document.text[entity.start : entity.end].lower()
            for document in read_documents(FOLDER / f"{part}.tsv")
            for entity in document.entities
        ]

    train, test = set(words("train")), words("test")
    assert 0.2 < sum(word not in train for word in test) / len(test) < 0.6
