"""Documents drawn from a seed, with what is hard to write: line ends, emoji, accents, overlaps."""

import random

from medjax.text import Document, Entity, Relation

LABELS = ("Drug", "Sign", "Maladie_chronique", "é🙂", "a:b", "O", "#", "T1")
"""Labels that BRAT can hold."""
ANY_LABELS = (*LABELS, "Effet indésirable", "tab\tand\r\nline", " ", '"', ",")
WORDS = (
    "fièvre|toux|cœur|insuline lente|39,5|°C|(|)|/|;|\"|,|'|\\|%|T1\tSign 0 4\ttoux|R1\tof Arg1:T1"
)
SIGNS = "🙂|👩🏽‍⚕️|🇫🇷|e\u0301|a\u0300\u0323|\U0001d6fc|漢字|שלום|\u200d|\ufeff|sans\0fin"
SPACES = " | |  |\u00a0|\t|\n|\n|\r\n|\r\n|\r|\n\n|\v|\f|\x1c|\x85|\u2028|\u2029"
PIECES = "|".join((WORDS, SIGNS, SPACES)).split("|")


def document(seed, labels=LABELS):
    """Return a document, whose entities overlap and are sorted by start, end and label."""
    draw = random.Random(seed)
    text = "".join(draw.choices(PIECES, k=draw.choice((0, 1, 4, 20, 60)))).lstrip("\ufeff")
    entities = []
    for _ in range(draw.choice((0, 1, 3, 8)) if text else 0):
        start = draw.randrange(len(text))
        end = min(start + draw.choice((1, 2, 5, 20, 200)), len(text))
        score = draw.choice((None, draw.random(), 0.0, 1.0))
        entities.append(Entity(draw.choice(labels), start, end, score))
    entities.sort(key=lambda entity: entity[1:3] + entity[:1])
    relations = tuple(
        Relation(
            draw.choice(labels),
            draw.randrange(len(entities)),
            draw.randrange(len(entities)),
            draw.choice((None, draw.random())),
        )
        for _ in range(draw.choice((0, 1, 4)) if entities else 0)
    )
    return Document(text, tuple(entities), f"ward{seed % 7}/note {seed}.v{seed % 3}", relations)


def without_scores(document):
    """Return a document as formats without scores keep it."""
    entities = tuple(entity._replace(score=None) for entity in document.entities)
    relations = tuple(relation._replace(score=None) for relation in document.relations)
    return document._replace(entities=entities, relations=relations)
