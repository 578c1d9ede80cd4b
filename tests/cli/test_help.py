"""The help of ``python -m medjax`` and of each of its commands."""

import pytest

from medjax.cli import main

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
