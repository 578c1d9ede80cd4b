"""The example medkit_ner.py with a tiny model, trained by medjax and by medkit."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "medkit_ner.py"


@pytest.mark.parametrize("trainer", ["medjax", "medkit"])
def test_it_trains_and_scores(trainer, tiny_folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("medkit")
    pytest.importorskip("seqeval")
    monkeypatch.setattr(sys, "path", [str(EXAMPLE.parent), *sys.path])
    source = (EXAMPLE.parent / "data" / "synthetic_clinical" / "train.tsv").read_text("utf-8")
    columns = tmp_path / "corpus.tsv"
    columns.write_text("\n\n".join(source.split("\n\n")[:40]) + "\n", "utf-8")
    arguments = ["--data", str(columns), "--model", str(tiny_folder), "--trainer", trainer]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of medkit and seqeval
        main = runpy.run_path(str(EXAMPLE))["main"]
        scores = main(
            [*arguments, "--output", str(tmp_path), "--epochs", "1", "--max-length", "60"]
        )
    assert {"loss", "macro_f1-score"} <= set(scores)
    assert "Test split, last epoch: F1" in capsys.readouterr().out
    (checkpoint,) = (tmp_path / trainer).iterdir()
    assert (checkpoint / "config.json").is_file()
