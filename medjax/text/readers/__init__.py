"""Read annotated corpora as lists of `medjax.text.Document`."""

from medjax.text.readers._dropped import Dropped
from medjax.text.readers.brat import BratCorpus, read_brat
from medjax.text.readers.conll import read_conll
from medjax.text.readers.formats import CONLL_SUFFIXES, format_of, read_documents
from medjax.text.readers.medkit_json import read_medkit_json

__all__ = [
    "CONLL_SUFFIXES",
    "BratCorpus",
    "Dropped",
    "format_of",
    "read_brat",
    "read_conll",
    "read_documents",
    "read_medkit_json",
]
