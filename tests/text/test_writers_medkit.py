"""medkit reads what is written for it: its own JSON, BRAT and Doccano."""

import pytest
from generated_documents import ANY_LABELS, document

from medjax.text import Document, Entity, Relation
from medjax.text.writers import write_brat, write_doccano, write_medkit_json

pytest.importorskip("medkit")
from medkit.core.text import TextDocument, span_utils
from medkit.io.brat import BratInputConverter
from medkit.io.doccano import DoccanoInputConverter, DoccanoTask
from medkit.io.medkit_json import load_text_documents, save_text_documents

COUNTS = pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
TEXT = "Sous aspirine\n🙂 lente, pas de fièvre"
PLAIN = Document(
    TEXT,
    (Entity("Drug", 5, 21), Entity("Rate", 16, 21), Entity("Sign", 30, 36)),
    "note",
    (Relation("Against", 0, 2), Relation("Of", 1, 0)),
)


def as_read(found: TextDocument, *, scores=True):
    """Return a document of medkit as one of ours, without its name."""
    entities = found.anns.get_entities()
    places = {entity.uid: place for place, entity in enumerate(entities)}
    ours = []
    for entity in entities:
        spans = span_utils.normalize_spans(entity.spans)
        ours.append(Entity(entity.label, spans[0].start, spans[-1].end, score_of(entity)))
    relations = [
        Relation(r.label, places[r.source_id], places[r.target_id], score_of(r))
        for r in found.anns.get_relations()
    ]
    return Document(found.text, tuple(ours), "", tuple(relations))


def score_of(annotation):
    scores = [attribute.value for attribute in annotation.attrs.get(label="score")]
    return scores[0] if scores else None


@COUNTS
def test_medkit_reads_its_json(count, tmp_path):
    written = [document(seed, ANY_LABELS) for seed in range(count)]
    path = tmp_path / "notes.jsonl"
    write_medkit_json(written, path)
    read = list(load_text_documents(path))
    assert [as_read(each) for each in read] == [each._replace(name="") for each in written]
    assert [each.metadata for each in read] == [{"name": each.name} for each in written]
    save_text_documents(read, tmp_path / "again.jsonl")
    assert list(map(as_read, load_text_documents(tmp_path / "again.jsonl"))) == list(
        map(as_read, read)
    )


def test_medkit_reads_brat(tmp_path):
    write_brat([PLAIN], tmp_path)
    (read,) = BratInputConverter().load(tmp_path)
    assert as_read(read) == PLAIN._replace(name="")
    assert [entity.text for entity in read.anns.get_entities()] == [
        "aspirine 🙂 lente",
        "lente",
        "fièvre",
    ]


def test_medkit_reads_doccano(tmp_path):
    path = tmp_path / "notes.jsonl"
    write_doccano([PLAIN], path, relations=True)
    (read,) = DoccanoInputConverter(DoccanoTask.RELATION_EXTRACTION).load_from_file(path)
    assert as_read(read) == PLAIN._replace(name="")
    assert read.metadata == {"name": "note"}
    write_doccano([PLAIN], path)
    (read,) = DoccanoInputConverter(DoccanoTask.SEQUENCE_LABELING).load_from_file(path)
    assert as_read(read) == PLAIN._replace(name="", relations=())
