"""Reports: what is resampled for the intervals of texts with groups."""

import jax
import pytest
import trained_folders

from medjax.components import TextClassification
from medjax.metrics import ClassificationMetrics, bootstrap
from medjax.recipes import report_texts
from medjax.text import LabelledText


@pytest.mark.parametrize("first", ["", "p0"])
def test_groups_are_resampled_also_where_the_first_text_has_none(first, tmp_path):
    encoder = trained_folders.write_encoder(tmp_path / "encoder")
    classifier = TextClassification.from_pretrained(encoder, ["head", "heart"], max_length=16)
    groups = [first, "", *(f"p{n // 3}" for n in range(6))]
    texts = [
        LabelledText("her fever" if n % 2 else "her drug", (classifier.labels[n % 2],), f"{n}", of)
        for n, of in enumerate(groups)
    ]
    report = report_texts(classifier, classifier.init(jax.random.key(0)), texts)
    assert report.text.startswith("8 texts, 95 % intervals by group:")
    drawn = [group or number for number, group in enumerate(groups)]  # none is shared by none
    expected = bootstrap(ClassificationMetrics(classifier.labels), report.columns, groups=drawn)
    assert report.scores == expected
    without = report_texts(
        classifier, classifier.init(jax.random.key(0)), [text._replace(group="") for text in texts]
    )
    assert without.text.startswith("8 texts, 95 % intervals by text:")
