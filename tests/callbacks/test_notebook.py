"""A notebook that trains is executed, and what is kept of its outputs is fit to be read."""

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

pytestmark = pytest.mark.filterwarnings("ignore")  # those of Jupyter

TRAINING = """
import sys, warnings
warnings.simplefilter("error")
sys.path.insert(0, {tests!r})
import medjax
from tiny import config, mlp, points
result = medjax.train(mlp(), config({folder!r}), points(8), points(4))
"""


def test_an_executed_notebook_has_one_bar_and_no_warning(tmp_path, request):
    tests = str(request.config.rootpath / "tests")
    source = TRAINING.format(tests=tests, folder=str(tmp_path / "run"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    (bar,) = [output for output in outputs if output.output_type == "display_data"]
    assert bar.data.keys() == {"text/plain"}
    assert bar.data["text/plain"].startswith("2 epochs in ")
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "\r" not in printed
    assert "Warning" not in printed
    lines = [line.partition(" ")[2].split() for line in printed.splitlines()]
    assert [line[0] for line in lines] == [
        "Running",
        "epoch",
        "1",
        "Saving",
        "2",
        "Saving",
        "Training",
    ]
