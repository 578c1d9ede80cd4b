"""Write medkit_*.json and .jsonl with medkit's own writer.

Run by hand where medkit-lib 0.17.0 is installed: ``python tests/golden/make_medkit_json.py``.
The texts are invented.
"""

from pathlib import Path

from medkit.core.text import Entity, ModifiedSpan, Relation, Segment, Span, TextDocument
from medkit.io import medkit_json

FOLDER = Path(__file__).parent


def entity(uid, label, text, *spans):
    return Entity(label=label, text=text, spans=list(spans), uid=uid)


def documents():
    text = "Fièvre à 39 °C, traitée par\nparacétamol."
    first = TextDocument(text=text, uid="doc-1")
    first.anns.add(Segment(label="sentence", text=text, spans=[Span(0, 40)], uid="s-1"))
    first.anns.add(entity("e-1", "Problem", "Fièvre", Span(0, 6)))
    first.anns.add(entity("e-2", "Treatment", "paracétamol", Span(28, 39)))
    first.anns.add(entity("e-3", "Problem", "Fièvre à 39 °C", Span(0, 14)))
    first.anns.add(Relation(label="treats", source_id="e-2", target_id="e-1", uid="r-1"))

    second = TextDocument(text="Left hip and knee pain.", uid="doc-2")
    replaced = ModifiedSpan(length=8, replaced_spans=[Span(13, 17)])
    second.anns.add(
        entity("e-4", "Problem", "Left patellar pain", Span(0, 5), replaced, Span(17, 22))
    )
    inserted = ModifiedSpan(length=5, replaced_spans=[])
    second.anns.add(entity("e-5", "Test", "X-ray", inserted))

    third = TextDocument(text="Nothing to report.", uid="doc-3")
    return [first, second, third]


def main():
    first, *_ = docs = documents()
    medkit_json.save_text_documents(docs, FOLDER / "medkit_documents.jsonl")
    medkit_json.save_text_document(first, FOLDER / "medkit_document.json")
    medkit_json.save_text_document(
        first,
        FOLDER / "medkit_split.json",
        split_anns=True,
        anns_output_file=FOLDER / "medkit_split_anns.jsonl",
    )


if __name__ == "__main__":
    main()
