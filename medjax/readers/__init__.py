"""Annotated corpora as lists of `medjax.text.Document`."""

from medjax.readers._dropped import Dropped as Dropped
from medjax.readers.brat import BratCorpus as BratCorpus
from medjax.readers.brat import read_brat as read_brat
from medjax.readers.conll import read_conll as read_conll
from medjax.readers.formats import CONLL_SUFFIXES as CONLL_SUFFIXES
from medjax.readers.formats import format_of as format_of
from medjax.readers.formats import read_documents as read_documents
from medjax.readers.medkit_json import read_medkit_json as read_medkit_json
