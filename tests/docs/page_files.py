"""The files that the code of the documentation reads, with tiny models and a few notes."""

import random

import pyarrow
import pyarrow.parquet
from trained_folders import write_encoder, write_tagger

SENTENCES = (
    ("Aspirin relieved her headache.", "neurology"),
    ("No chest pain since the stent.", "cardiology"),
    ("Fever and cough for three days.", "neurology"),
    ("Aspirin 100 mg daily for the heart.", "cardiology"),
)
ENTITIES = {"Aspirin": "Drug", "headache": "Sign", "chest pain": "Sign", "Fever": "Sign"}
LETTERS = (
    "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 - ( ) / ' : ; % + é"
)
PUBTATOR = """1|t|Aspirin and headache
1|a|Aspirin relieved it.
1\t0\t7\tAspirin\tChemical\tD001241
1\t12\t20\theadache\tDisease\tD006261
"""


def write_page_files(folder, examples):
    """Write what the pages read: models, corpora and tables by the names that the pages use."""
    write_encoder(folder / "minilm", words=[LETTERS, *(text for text, _ in SENTENCES)])
    write_tagger(folder / "tagger", folder / "minilm")
    (folder / "examples").symlink_to(examples, target_is_directory=True)
    for name, count in (("notes.csv", 100), ("devel.csv", 20)):
        _write_table(folder / name, count)
    _write_brat(folder / "corpus")
    (folder / "corpus.txt").write_text(PUBTATOR)
    _write_datasets(folder)


def _write_table(file, count):
    draw = random.Random(0)
    rows = [f"p{draw.randrange(30)},{','.join(draw.choice(SENTENCES))}" for _ in range(count)]
    file.write_text("\n".join(["patient,text,specialty", *rows]) + "\n")


def _spans(text):
    for words, label in ENTITIES.items():
        start = text.find(words)
        if start >= 0:
            yield start, start + len(words), label


def _write_brat(folder):
    folder.mkdir()
    for number in range(8):
        text = SENTENCES[number % len(SENTENCES)][0]
        lines = [
            f"T{place}\t{label} {start} {end}\t{text[start:end]}"
            for place, (start, end, label) in enumerate(_spans(text), 1)
        ]
        (folder / f"p{number:02d}.txt").write_text(text)
        (folder / f"p{number:02d}.ann").write_text("".join(f"{line}\n" for line in lines))


def _write_datasets(folder):
    rows = [{"tokens": ["Aspirin", "helps"], "ner_tags": ["B-Drug", "O"]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    text = SENTENCES[0][0]
    spans = [{"start": start, "end": end, "label": label} for start, end, label in _spans(text)]
    table = pyarrow.Table.from_pylist([{"note": text, "spans": spans}])
    pyarrow.parquet.write_table(table, folder / "notes.parquet")
