import gzip
import json
from pathlib import Path

import pytest

from medjax.metrics.spans import span_scores

GOLDEN = json.loads(gzip.decompress(Path(__file__).with_name("seqeval.json.gz").read_bytes()))


def decode(corpus, key):
    return [[corpus["tags"][ord(letter) - ord("A")] for letter in row] for row in corpus[key]]


@pytest.mark.parametrize(
    ("scheme", "rule"),
    [("iob2", "conlleval"), ("iob2", "iob2"), ("bilou", "conlleval"), ("bilou", "bilou")],
)
def test_scores_equal_those_of_seqeval(scheme, rule):
    assert len(GOLDEN[scheme]) == 50
    for corpus in GOLDEN[scheme]:
        scores = span_scores(decode(corpus, "true"), decode(corpus, "pred"), rule)
        assert scores == corpus["scores"][rule]


def test_the_golden_corpora_contain_ill_formed_sequences():
    for scheme, ill_formed in (("iob2", ["OI"]), ("bilou", ["OI", "OL", "OU", "BO", "BB"])):
        text = {
            "".join(tag[0] for tag in tags)
            for corpus in GOLDEN[scheme]
            for tags in decode(corpus, "pred")
        }
        for pair in ill_formed:
            assert any(pair in prefixes for prefixes in text)
