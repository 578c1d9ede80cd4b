"""spaCy's DocBin, where spaCy is installed, and what is said where it is not."""

import sys

import pytest

from medjax.text import Document, Entity
from medjax.text.readers import format_of, read_docbin, read_documents

WORDS = ["No", "high", "fever", "🙂", "."]


@pytest.fixture
def docbin(tmp_path):
    """Return a function that writes a DocBin of one text with entities and groups of spans."""
    tokens = pytest.importorskip("spacy.tokens")
    vocab = pytest.importorskip("spacy.vocab").Vocab()

    def docbin(ents, **groups):
        doc = tokens.Doc(vocab, WORDS, spaces=[True, True, True, False, False])
        doc.ents = [tokens.Span(doc, *ent) for ent in ents]
        for name, spans in groups.items():
            doc.spans[name] = [tokens.Span(doc, *span) for span in spans]
        path = tmp_path / "train.spacy"
        tokens.DocBin(docs=[doc, tokens.Doc(vocab, ["Well"])], store_user_data=True).to_disk(path)
        return path

    return docbin


def test_named_entities(docbin, caplog):
    path = docbin([(1, 3, "Sign"), (3, 4, "Mood"), (4, 5)])
    documents = [
        Document(
            "No high fever 🙂.", (Entity("Sign", 3, 13), Entity("Mood", 14, 15)), "train.spacy:1"
        ),
        Document("Well ", (), "train.spacy:2"),
    ]
    assert read_docbin(path) == read_documents(path) == documents
    assert format_of(path) == "docbin"


def test_a_group_of_spans_may_overlap(docbin, caplog):
    path = docbin([], sc=[(1, 3, "Sign"), (1, 2, "Degree"), (2, 3, "")], other=[(0, 1, "x")])
    (first, second) = read_docbin(path, span_group="sc", overlapping=True)
    assert first.entities == (Entity("Degree", 3, 7), Entity("Sign", 3, 13))
    assert second.entities == ()
    assert read_docbin(path, span_group="sc")[0].entities == (Entity("Sign", 3, 13),)
    assert "spans without a label: 1" in caplog.text
    assert "entities overlapping a longer one: 1" in caplog.text
    assert read_docbin(path)[0].entities == ()
    with pytest.raises(
        ValueError, match=r"groups of spans \['sc', 'other'\], expected 'mine'; pass"
    ):
        read_docbin(path, span_group="mine")


@pytest.mark.parametrize("content", [b"", b"No fever", b"x\x9c\x03\x00"])
def test_a_file_that_is_no_docbin_is_refused(write, content):
    pytest.importorskip("spacy")
    message = (
        r"a\.spacy: found a file that spaCy does not read \(.*\), expected a DocBin of spaCy 3"
    )
    with pytest.raises(ValueError, match=message):
        read_docbin(write("a.spacy", content))


def test_the_error_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy.tokens", None)
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match=r'not installed; pip install "medjax\[spacy\]"'):
        read_docbin(write("a.spacy", b""))
