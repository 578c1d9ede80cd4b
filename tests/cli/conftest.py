"""Models, notes and the command that the tests of ``python -m medjax predict`` have in common."""

import pytest
import trained_folders
from sample_notes import LOADED, MULTI, TEXTS

from medjax.cli import main, prediction
from medjax.components import load_component
from medjax.text import Document


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a component of each kind."""
    root = tmp_path_factory.mktemp("models")
    encoder = trained_folders.write_encoder(root / "encoder")
    trained_folders.write_tagger(root / "tagger", encoder)
    trained_folders.write_classifier(root / "classifier", encoder, max_length=32)
    trained_folders.write_classifier(root / "several", encoder, **MULTI)
    trained_folders.write_relations(root / "relations", encoder)
    return root


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    for name, text in TEXTS.items():
        file = folder / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, newline="")
    return folder


@pytest.fixture
def predict(models, notes, tmp_path, monkeypatch):
    """Return a function that runs the command and returns its exit status and folder.

    Models are read from their folders once.
    """
    monkeypatch.setattr(prediction, "load_component", LOADED)

    def run(model, *arguments, source=notes, output="out"):
        fixed = ["--model", str(models / model), "--input", str(source)]
        status = main(["predict", *fixed, "--output", str(tmp_path / output), *arguments])
        return status, tmp_path / output

    return run


@pytest.fixture
def tagged(models):
    """The notes with the entities that the component itself finds."""
    tagger, variables = load_component(models / "tagger")
    found = tagger.predict(variables, list(TEXTS.values()))
    return [
        Document(text, entities, name)
        for (name, text), entities in zip(TEXTS.items(), found, strict=True)
    ]
