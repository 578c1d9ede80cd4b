"""Time ``python -m medjax predict`` beside the pipeline of transformers, on the same model.

Each contender runs in a process of its own, start and compilation included, and writes what it
found. The notes are generated; their lengths are lognormal and none has more than 512 tokens, which
the pipeline would cut off. ``--notes 100000 --only medjax --model tiny`` measures the memory of a
long run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from medjax.components import TokenClassification
from medjax.models import BertConfig, TokenClassifier, resolve_model, write_checkpoint

LABELS = ("Problem", "Test", "Treatment")
TEXT = """
patient denies chest pain fever cough and shortness of breath since admission blood pressure was
stable on lisinopril 10 mg daily CT abdomen showed acute pancreatitis so he kept intravenous fluids
creatinine rose after ibuprofen for chronic back pain discharged home with follow up in two weeks
no known allergies history hypertension diabetes mellitus type 2
"""
LONGEST = 350  # words, which are at most 512 tokens

PIPELINE = """
import json, os, sys
from pathlib import Path
import torch, transformers
torch.set_num_threads(int(sys.argv[4]))
files = sorted(Path(sys.argv[2]).glob("*.txt"))
texts = [file.read_text() for file in files]
order = list(range(len(texts)))
if sys.argv[6] == "sorted":
    order.sort(key=lambda number: len(texts[number]))
find = transformers.pipeline(
    "token-classification", model=sys.argv[1], device="cpu", aggregation_strategy="first"
)
found = find([texts[number] for number in order], batch_size=int(sys.argv[5]))
with open(sys.argv[3], "w") as output:
    for number, entities in zip(order, found):
        output.write(json.dumps([files[number].stem, entities], default=float) + "\\n")
"""


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notes", type=int, default=1000)
    parser.add_argument("--median", type=int, default=70, help="words of a note")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--model", choices=("minilm", "tiny"), default="minilm")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", help="a contender")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = write_model(work / "model", tiny=arguments.model == "tiny")
        write_notes(work / "notes", arguments.notes, arguments.median)
        commands = contenders(model, work / "notes", arguments)
        print(f"{'contender':24} round  seconds  CPU seconds  peak MiB  per 1,000 notes")
        for number in range(1, arguments.rounds + 1):
            for name, command in commands.items():
                if arguments.only in (None, name):
                    output = work / f"{name}-{number}"
                    wall, cpu, peak = measured([part.format(output=output) for part in command])
                    per = 1000 * wall / arguments.notes
                    row = f"{name:24} {number:5} {wall:8.1f} {cpu:12.1f} {peak:9.0f} {per:15.2f}"
                    print(row, flush=True)


def contenders(model: Path, notes: Path, chosen: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each contender."""
    size, threads = str(chosen.batch_size), str(chosen.threads)
    medjax = [sys.executable, "-m", "medjax", "predict", "--model", str(model), "--input"]
    medjax += [str(notes), "--output", "{output}", "--format", "jsonl", "--batch-size", size]
    pipeline = [sys.executable, "-c", PIPELINE, str(model), str(notes), "{output}", threads, size]
    pipeline[2] = pipeline[2].replace("{", "{{").replace("}", "}}")
    return {
        "medjax": medjax,
        "medjax-bfloat16": [*medjax, "--precision", "bfloat16"],
        "pipeline": [*pipeline, "unsorted"],
        "pipeline-sorted": [*pipeline, "sorted"],
    }


def measured(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its seconds, CPU seconds, and the largest memory of any so far."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1024


def write_model(folder: Path, *, tiny: bool) -> Path:
    """Write a tagger with a random head: MiniLM, or a tiny encoder with its tokenizer."""
    source = resolve_model("minilm")
    if tiny:
        source = write_tiny(folder.with_name("encoder"), source)
    tagger = TokenClassification.from_pretrained(source, LABELS)
    tagger.save(folder, tagger.init(jax.random.key(0)))
    return folder


def write_tiny(folder: Path, tokenizer: Path) -> Path:
    """Write a random encoder of one layer of 32."""
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    ids = jax.numpy.ones((1, 2), "int32")
    params: Any = TokenClassifier(config, 2).init(jax.random.key(0), ids, ids, deterministic=True)
    write_checkpoint(folder, config, params["params"], labels=("O", "I-Any"))
    for file in tokenizer.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    for file in tokenizer.glob("vocab*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def write_notes(folder: Path, count: int, median: int) -> None:
    """Write notes whose lengths are lognormal."""
    folder.mkdir()
    draw = random.Random(0)
    for number in range(count):
        words = min(max(int(draw.lognormvariate(0, 0.8) * median), 1), LONGEST)
        text = " ".join(draw.choices(TEXT.split(), k=words))
        (folder / f"{number:07}.txt").write_text(f"{text}.\n")


if __name__ == "__main__":
    main()
