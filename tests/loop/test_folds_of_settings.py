"""Folds of components that differ in their settings are not mixed, and what differs is told."""

import json
import re

import pytest
from tiny import config, mlp, points

import medjax
from medjax import Accuracy, cross_validate
from medjax.loop.fold_identity import differences

DATA = points(12)
OWN = {"identity": {"pooling": "mean"}, "loss_settings": {"weight": 1.0}, "reading": {"size": 8}}


def run(folder, component=None, **fields):
    settings = config(folder, nb_training_epochs=1, batch_size=8, **{"seed": 3, **fields})
    component = mlp()._replace(**OWN) if component is None else component
    return cross_validate(component, settings, DATA, Accuracy(), nb_folds=2, callback=[])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    return folder, run(folder)


def other_rows(data, *, training):
    return medjax.ExpandedData([*data, *data] if training else data, [*range(12), *range(12)])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"identity": {"pooling": "max"}}, "component.identity.pooling was 'mean' and is 'max'"),
        (
            {"loss_settings": {"weight": 2.0, "focus": 1}},
            "component.loss_settings.focus was None and is 1, "
            "component.loss_settings.weight was 1.0 and is 2.0",
        ),
        ({"reading": {"size": 4}}, "component.reading.size was 8 and is 4"),
        ({"expand": other_rows}, "the numbers of rows that items are expanded to differ"),
    ],
)
def test_folds_of_a_component_with_other_settings_are_refused(more, told, finished):
    folder, _ = finished
    component = mlp()._replace(**{**OWN, **more})
    with pytest.raises(ValueError, match=re.escape(f"folds or settings ({told}); expected")):
        run(folder, component)


def test_the_same_settings_go_on(finished):
    folder, result = finished
    assert run(folder).columns == result.columns


def test_other_settings_and_folds_are_told(finished):
    folder, _ = finished
    told = (
        r"\(config.learning_rate was 0.1 and is 0.2, the rates of the schedule differ\); expected"
    )
    with pytest.raises(ValueError, match=told):
        run(folder, learning_rate=0.2)
    with pytest.raises(ValueError, match=r"config.seed was 3 and is 4, other items are held out,"):
        run(folder, seed=4)


def test_folds_of_older_versions_are_told(finished):
    stored = json.loads((finished[0] / "fold_1" / "fold.json").read_text())["fold"]
    settings, held_out = json.loads(stored)
    del settings["component"]
    older = json.dumps([settings, held_out])
    assert differences(older, stored) == "component: not recorded by an older version"
    for text in ('"x"', "[1]", "{", "[[1], [2]]"):
        assert differences(text, stored) == "of an older version, or changed by hand"


def test_of_many_differences_the_first_are_told():
    one, other = (json.dumps([{"config": dict.fromkeys("abcdefgh", n)}, []]) for n in (1, 2))
    assert differences(one, other).endswith("config.f was 1 and is 2, and 2 more")
