"""Read annotated corpora as lists of `medjax.text.Document`, labelled texts from tables."""

from medjax.text.readers._dropped import Dropped
from medjax.text.readers.brat import BratCorpus, read_brat
from medjax.text.readers.conll import read_conll
from medjax.text.readers.formats import CONLL_SUFFIXES, format_of, read_documents
from medjax.text.readers.medkit_json import read_medkit_json
from medjax.text.readers.tables import TABLE_SUFFIXES, read_texts

__all__ = [
    "CONLL_SUFFIXES",
    "TABLE_SUFFIXES",
    "BratCorpus",
    "Dropped",
    "format_of",
    "read_brat",
    "read_conll",
    "read_documents",
    "read_medkit_json",
    "read_texts",
]
