"""The page on the output names every file that a run of the example's settings leaves."""

from pathlib import Path

from page_files import write_page_files

import medjax
from medjax.components import TokenClassification
from medjax.text.readers import read_documents

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "start" / "reading-the-output.md"


def test_every_file_of_a_run_is_on_the_page(tmp_path):
    write_page_files(tmp_path, ROOT / "examples")
    documents = read_documents(tmp_path / "corpus")
    tagger = TokenClassification.from_pretrained(tmp_path / "minilm", ["Drug", "Sign"])
    run = tmp_path / "run"
    config = medjax.TrainerConfig(run / "checkpoints", nb_training_epochs=1, batch_size=8, seed=0)
    result = medjax.train(tagger.component, config, documents, options=medjax.Options(log_dir=run))
    written = [*run.iterdir(), *result.last_checkpoint.iterdir()]
    assert len(written) > 8
    page = PAGE.read_text(encoding="utf-8")
    for path in written:
        assert f"`{path.name}{'/' if path.is_dir() else ''}`" in page, path
