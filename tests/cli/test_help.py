"""The help of ``python -m medjax`` and its commands, and how the documentation calls them."""

import re
from pathlib import Path

import pytest
import trained_folders

from medjax.cli import main, make_parser
from medjax.components import RelationClassification

COMMANDS = ["train", "evaluate", "predict", "inspect", "doctor"]


def help_of(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_all_commands_are_listed_with_what_they_do(capsys):
    text = help_of([], capsys)
    assert all(name in text for name in COMMANDS)
    assert "with 95 % intervals" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_its_arguments_and_itself(name, capsys):
    text = help_of([name], capsys)
    assert f"python -m medjax {name}" in text
    assert "%" not in text.replace("95 %", "")  # what argparse was to fill in
    assert "`" not in text


def test_the_defaults_of_pairs_are_those_of_the_component(capsys, tmp_path):
    encoder = trained_folders.write_encoder(tmp_path / "encoder")
    kinds = trained_folders.KINDS
    made = RelationClassification.from_pretrained(encoder, ["Relieves"], kinds)
    text = help_of(["train"], capsys)
    for name in ("reach", "context"):
        (told,) = re.findall(rf"--{name} {name.upper()} relations: .*?\(default: (.*?)\)", text)
        assert told == f"those of the model, or {getattr(made, name)}"


def test_the_commands_of_the_documentation_have_their_arguments():
    page = Path(__file__).parents[2].joinpath("docs", "command-line.md").read_text()
    lines = re.findall(r"^python -m medjax (.*)$", page.replace("\\\n", " "), flags=re.MULTILINE)
    called = [make_parser().parse_args(line.split()).command for line in lines]
    assert set(called) == {"train", "evaluate", "inspect", "doctor"}
