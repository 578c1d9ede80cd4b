"""Notes for ``python -m medjax predict``, and models that are read from their folders once."""

import functools

import trained_folders

from medjax.components import load_component

LOADED = functools.cache(load_component)
WORDS = trained_folders.WORDS.split()
MULTI = {"problem_type": "multi_label_classification"}
TEXTS = {
    "a": "no fever since the stent",
    "b": " ".join(WORDS * 9),  # several windows
    "ward/c": "aspirin relieved her headache\r\nand cough",
    "ward/d": "chest pain",
    "z": "her drug",
}


def without_scores(documents):
    return [
        each._replace(entities=tuple(e._replace(score=None) for e in each.entities))
        for each in documents
    ]
