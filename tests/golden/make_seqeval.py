"""Write seqeval.json.gz: random corpora of tags and their scores by seqeval 1.2.2.

Run by hand where seqeval is installed: ``python tests/golden/make_seqeval.py``.

A sentence is stored as a string with one letter per tag: "A" is the first tag of the corpus. The
rule "conlleval" is seqeval's default mode, which does not know L- and U- (it warns and loses
spans); in BILOU tags they are replaced by E- and S-.
"""

import gzip
import json
import random
import warnings
from pathlib import Path

from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import BILOU, IOB2

PREFIXES = {"iob2": "BI", "bilou": "BILU"}
STRICT = {"iob2": IOB2, "bilou": BILOU}
TO_BIOES = str.maketrans("LU", "ES")


def well_formed(rng, labels, scheme, length):
    tags = []
    while len(tags) < length:
        run = min(rng.choice([1, 1, 1, 2, 2, 3, 5]), length - len(tags))
        if rng.random() < 0.5:
            tags += ["O"] * run
        else:
            label = rng.choice(labels)
            single, last = ("U", "L") if scheme == "bilou" else ("B", "I")
            prefixes = single if run == 1 else "B" + "I" * (run - 2) + last
            tags += [f"{prefix}-{label}" for prefix in prefixes]
    return tags


def noisy(rng, tags, names, noise):
    return [rng.choice(names) if rng.random() < noise else tag for tag in tags]


def seqeval_scores(y_true, y_pred, scheme, rule):
    if rule == "conlleval":
        options = {}
        if scheme == "bilou":
            y_true, y_pred = (
                [[tag[0].translate(TO_BIOES) + tag[1:] for tag in tags] for tags in y]
                for y in (y_true, y_pred)
            )
    else:
        options = {"mode": "strict", "scheme": STRICT[rule]}
    report = classification_report(y_true, y_pred, output_dict=True, zero_division=0, **options)
    scores = {"accuracy": accuracy_score(y_true, y_pred)}
    for name, values in report.items():
        for key, value in values.items():
            scores[f"{name.removesuffix(' avg')}_{key}"] = float(value)
    scores["support"] = scores.pop("micro_support")
    del scores["macro_support"], scores["weighted_support"]
    return scores


def corpus(rng, scheme):
    labels = [f"L{index}" for index in range(rng.randint(1, 4))]
    names = ["O", *(f"{prefix}-{label}" for label in labels for prefix in PREFIXES[scheme])]
    noise_true, noise_pred = rng.choice([0, 0, 0.1, 0.5]), rng.choice([0, 0.05, 0.2, 0.5, 1])
    seen = labels if rng.random() < 0.7 else labels[:1]  # a model that never predicts some labels
    y_true, y_pred = [], []
    for _ in range(20):
        tags = well_formed(rng, labels, scheme, rng.randint(1, 30))
        y_true.append(noisy(rng, tags, names, noise_true))
        predicted = noisy(rng, y_true[-1], names, noise_pred)
        y_pred.append([tag if tag[2:] in seen else "O" for tag in predicted])
    return {
        "tags": names,
        "true": [encode(names, tags) for tags in y_true],
        "pred": [encode(names, tags) for tags in y_pred],
        "scores": {r: seqeval_scores(y_true, y_pred, scheme, r) for r in ("conlleval", scheme)},
    }


def encode(names, tags):
    return "".join(chr(ord("A") + names.index(tag)) for tag in tags)


def main():
    warnings.simplefilter("error")
    rng = random.Random(0)
    content = {scheme: [corpus(rng, scheme) for _ in range(50)] for scheme in PREFIXES}
    data = json.dumps(content, separators=(",", ":")).encode()
    target = Path(__file__).with_name("seqeval.json.gz")
    target.write_bytes(gzip.compress(data, mtime=0))


if __name__ == "__main__":
    main()
