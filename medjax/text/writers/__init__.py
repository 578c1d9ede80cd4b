"""Write documents, annotated or predicted, in the formats of other tools."""

from medjax.text.writers.brat import write_brat
from medjax.text.writers.doccano import write_doccano
from medjax.text.writers.medkit_json import write_medkit_json
from medjax.text.writers.tables import write_csv

__all__ = ["write_brat", "write_csv", "write_doccano", "write_medkit_json"]
