"""``python -m medjax inspect`` on a checkpoint of a torch component."""

import json

import torch
from trained import Classifier, make

from medjax.cli import main


def halved(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def test_it_is_read_without_the_component(tmp_path, capsys):
    make(tmp_path / "run", Classifier(), lr_scheduler_builder=halved).train()
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["chosen"]
    assert found["written by"] == "medjax_torch"
    assert {"model.pt", "optimizer.pt", "scheduler.pt"} <= set(found["component"]["files"])
    groups = {group["name"]: group for group in found["arrays"]}
    parameters = Classifier().model.parameters()
    assert groups["params"]["nb_elements"] == sum(each.numel() for each in parameters)
    assert found["resume"]["finished"]
    assert main(["inspect", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert "betas=[0.9, 0.999]" in text
    assert "scheduler     StepLR" in text
