"""Read the lines of a BRAT file that link entities: relations, events and equivalences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import combinations

from medjax.text.readers._annotations import Annotations

# A name ends at its first colon, so that there is one way to match a line.
_RELATION = re.compile(r"R\S*\t(?P<label>\S+) (?P<ends>[^\s:]+:\S+ [^\s:]+:\S+)\s*")
_EVENT = re.compile(r"(?P<id>E\S*)\t[^\s:]+:(?P<trigger>\S+)(?P<arguments>( [^\s:]+:\S+)*)\s*")
_EQUIVALENCE = re.compile(r"\*\t(?P<label>\S+)(?P<members>( \S+){2,})\s*")
_ORDERED = ("Arg1", "Arg2")
_NUMBERED = re.compile(r"(?P<role>.*?\D)[0-9]+")


def add_relations(lines: Sequence[str], annotations: Annotations) -> list[str]:
    """Add the relations of ``R``, ``E`` and ``*`` lines; return the lines that have another form.

    Parameters
    ----------
    lines : sequence of str
        The lines, in the order of the file.
    annotations : Annotations
        The entities of all ``T`` lines. The relations are added to it.
    """
    malformed = []
    events = [match for line in lines if (match := _EVENT.fullmatch(line))]
    # Relations and arguments may refer to an event further down.
    known = {match[0] for match in events if annotations.add_alias(match["id"], match["trigger"])}
    for line in lines:
        if (match := _EVENT.fullmatch(line)) and line in known:
            arguments = _pairs(match["arguments"].split())
            roles = {role for role, _ in arguments}
            for role, identifier in arguments:
                annotations.add_relation(_without_number(role, roles), match["id"], identifier)
        elif match := _RELATION.fullmatch(line):
            ends = _pairs(match["ends"].split())
            if {role for role, _ in ends} == set(_ORDERED):
                ends.sort()
            annotations.add_relation(match["label"], ends[0][1], ends[1][1])
        elif match := _EQUIVALENCE.fullmatch(line):
            for one, other in combinations(match["members"].split(), 2):
                annotations.add_relation(match["label"], one, other)
        else:
            malformed.append(line)
    return malformed


def _pairs(arguments: Iterable[str]) -> list[tuple[str, str]]:
    """Return name and identifier of each of ``NAME:ID``."""
    return [(name, identifier) for name, _, identifier in (a.partition(":") for a in arguments)]


def _without_number(role: str, roles: set[str]) -> str:
    # BRAT numbers the arguments of one role: Theme, Theme2, Theme3.
    match = _NUMBERED.fullmatch(role)
    return match["role"] if match and match["role"] in roles else role
