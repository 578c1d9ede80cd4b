"""Read annotated corpora as lists of `medjax.text.Document`, labelled texts from tables."""

from medjax.text.readers._dropped import Dropped
from medjax.text.readers.bioc import read_bioc
from medjax.text.readers.brat import BratCorpus, read_brat
from medjax.text.readers.conll import read_conll
from medjax.text.readers.dataset import read_dataset
from medjax.text.readers.docbin import read_docbin
from medjax.text.readers.doccano import read_doccano
from medjax.text.readers.formats import CONLL_SUFFIXES, FORMATS, Format, format_of, read_documents
from medjax.text.readers.label_studio import read_label_studio
from medjax.text.readers.medkit_json import read_medkit_json
from medjax.text.readers.pubtator import read_pubtator
from medjax.text.readers.tables import TABLE_FORMATS, TABLE_SUFFIXES, TableFormat, read_texts

__all__ = [
    "CONLL_SUFFIXES",
    "FORMATS",
    "TABLE_FORMATS",
    "TABLE_SUFFIXES",
    "BratCorpus",
    "Dropped",
    "Format",
    "TableFormat",
    "format_of",
    "read_bioc",
    "read_brat",
    "read_conll",
    "read_dataset",
    "read_docbin",
    "read_doccano",
    "read_documents",
    "read_label_studio",
    "read_medkit_json",
    "read_pubtator",
    "read_texts",
]
