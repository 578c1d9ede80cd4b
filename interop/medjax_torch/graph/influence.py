"""Which of the values that forward reads affect what it computes, found by experiment.

Forward is recorded again with another value in place of the one that it read. Results that stay
the same do not depend on that value: it was only read to be printed or checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from medjax_torch.graph.conditions import Condition, is_of_finiteness
from medjax_torch.graph.digests import Summary, summary
from medjax_torch.graph.environment import silent
from medjax_torch.graph.errors import TraceError, at
from medjax_torch.graph.guards import Source, ancestry, is_random, refuse_random
from medjax_torch.graph.joint import Joint
from medjax_torch.graph.outputs import OutputSpec
from medjax_torch.graph.probes import (
    FOLLOWED,
    GRID,
    MARKS,
    MODERATE,
    NAN,
    PROBES,
    altering,
    always,
    flipping,
    mark,
    recognised,
)
from medjax_torch.graph.read_numbers import Expression
from medjax_torch.graph.reader import Answer, Read

aten = torch.ops.aten

_MOST_FLIPPED = 8
"""If more truth values than this are read, all are assumed to matter, without experiments."""


@dataclass
class Recording:
    """A functional graph and what is known about its results.

    Attributes
    ----------
    module : fx.GraphModule
        Returns the joint's results, then the values of `sources`, then those of `conditions`.
    sources : list of Source
        The values that are compared on the host, before a step.
    reads : list of Read
        The values of tensors that were handed to Python.
    conditions : list of Condition
        The truth values that are compared in the step.
    left_out : dict of str to str
        Outputs that are not in the graph, and the line that read a value they depend on.
    reported : tuple of str
        Lines that read values on which nothing in the graph depends.
    """

    module: fx.GraphModule
    sources: list[Source]
    reads: list[Read] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    reported: tuple[str, ...] = ()


Again = Callable[[Answer], "Recording | Exception"]
"""Records forward again, with other answers when it reads values."""


class _Settling:
    """The decisions about the values that were read in one recording."""

    def __init__(
        self, joint: Joint, recording: Recording, again: Again, changing: Collection[str]
    ) -> None:
        self.joint, self.recording = joint, recording
        self._again = again
        self._attributes = dict(vars(joint))
        self.base = summary(joint, recording.module)
        self.spec: OutputSpec = joint.outputs
        results: list[fx.Node] = list(recording.module.graph.output_node().args[0])  # type: ignore
        self.results = results[: len(results) - len(recording.sources)]
        self.looked = results[len(self.results) :]
        self._inputs = recording.module.graph.find_nodes(op="placeholder")
        self.changing = {*changing, *self._updated()} if changing else set()
        self.guards: dict[int, Source] = {}
        self.conditions: list[tuple[Condition, fx.Node]] = []
        self.loose: dict[str, str] = {}
        self.expressions: dict[str, tuple[Expression, fx.Node]] = {}
        self.reported: list[str] = []

    def _updated(self) -> set[str]:
        fixed = len(self.results) - len(self.joint.state)
        after = self.results[fixed:]
        pairs = zip(self.joint.state, after, self._inputs, strict=False)
        return {name for name, node, before in pairs if node is not before}

    def behind(self, node: fx.Node) -> tuple[str, bool, bool]:
        """Return the changing state a value depends on, and whether on inputs and on randomness."""
        ancestors = ancestry(node)
        names = [*self.joint.state, *self.joint.columns]
        inputs = [n for n, each in zip(names, self._inputs, strict=True) if each in ancestors]
        changing = next((name for name in inputs if name in self.changing), "")
        return changing, bool(inputs), any(map(is_random, ancestors))

    def is_more_than_batch(self, node: fx.Node) -> bool:
        """Return whether a value depends on parameters, buffers or random numbers."""
        ancestors = ancestry(node)
        state = self._inputs[: len(self.joint.state)]
        return any(each in ancestors for each in state) or any(map(is_random, ancestors))

    def ask(self, answer: Answer) -> Summary | Exception:
        """Return the summary of a recording with other answers, or the error that it raised.

        Afterwards the joint is restored to its state after the first recording.
        """
        try:
            try:
                with silent():
                    other = self._again(answer)
            except TraceError as error:
                other = error
            return other if isinstance(other, Exception) else summary(self.joint, other.module)
        finally:
            vars(self.joint).clear()
            vars(self.joint).update(self._attributes)

    def loosen(self, other: Summary, line: str, replaced: Collection[str] = ()) -> None:
        """Mark the outputs that differ as left out of the graph."""
        for key in {*self.base.outputs, *other.outputs}:
            mine = [leaf for leaf in self.base.outputs.get(key, []) if leaf[0] not in replaced]
            others = [leaf for leaf in other.outputs.get(key, []) if leaf[0] not in replaced]
            if mine != others and key in self.base.outputs:
                self.loose.setdefault(key, line)


def settle(
    joint: Joint, recording: Recording, again: Again, changing: Collection[str]
) -> Recording:
    """Sort the values that forward read: compared before a step, checked in it, or irrelevant.

    Parameters
    ----------
    joint : Joint
        The joint after the recording. Its outputs become those that the graph returns.
    recording : Recording
        The recording, made on real values.
    again : callable
        Makes another recording.
    changing : collection of str
        Parameters and buffers that change from step to step, so that values that depend on them
        cannot be compared before a step. Buffers that forward updates are added unless it is empty.

    Raises
    ------
    TraceError
        If loss, gradients or state depend on a changing value that cannot be checked.
    """
    settling = _Settling(joint, recording, again, changing)
    truths: list[int] = []
    numbers: list[int] = []
    plain: list[int] = []
    for index, (source, node) in enumerate(zip(recording.sources, settling.looked, strict=True)):
        state, depends, random = settling.behind(node)
        if not depends and not random:
            continue
        if source.is_optional and settling.is_more_than_batch(node):
            continue
        if (state and source.is_truth) or (random and source.is_assertion):
            truths.append(index)
        elif (state or random) and source.read is not None and not source.is_truth:
            numbers.append(index)
        elif random:
            raise refuse_random(source)
        else:
            settling.guards[index] = source
            if source.read is not None and not source.is_truth:
                plain.append(index)
    _settle_numbers(settling, numbers, plain)
    _settle_plain(settling, [index for index in plain if index in settling.guards])
    _settle_truths(settling, truths)
    return _settled(settling)


def _settle_numbers(settling: _Settling, numbers: Sequence[int], plain: Sequence[int]) -> None:
    """Check that changing numbers and arrays do not affect loss, gradients and state.

    At first, numbers of the batch are altered along with them, because a decoder reads both.
    """
    sources, reads = settling.recording.sources, settling.recording.reads
    wanted = {position for position, read in enumerate(reads) if read.kind == "array"}
    has_arrays = bool(wanted)
    wanted |= _reads_of(sources, numbers)
    if not wanted:
        return
    lines = sorted({reads[position].line for position in wanted})
    own = [index for index in plain if "site-packages" not in sources[index].line]
    together = wanted | _reads_of(sources, own)
    experiments = _experiments([reads[position] for position in together])
    probes: list[Summary] = []
    checked = False
    number = 0
    while number < len(experiments):
        float_, integer = experiments[number]
        probe = settling.ask(altering(together, float_, integer))
        if isinstance(probe, OverflowError):  # for example from an exponential function
            moderate = always(math.copysign(MODERATE, float_(0)))
            probe = settling.ask(altering(together, moderate, integer))
        if isinstance(probe, Summary) and probe.core == settling.base.core:
            probes.append(probe)
        elif together != wanted:
            together, own, probes, number = wanted, [], [], -1
            experiments = _experiments([reads[position] for position in together])
        elif number == NAN and isinstance(probe, Exception) and not has_arrays:
            # Forward may raise an error for NaN, which can be checked in the step.
            checked = True
        else:
            raise _influence(settling, numbers, wanted, probe)
        number += 1
    _follow_outputs(settling, numbers, probes, lines[0])
    followed = {reads[position].line for position in wanted if reads[position].is_followed}
    settling.reported += [line for line in lines if line not in followed]
    for index in own:
        del settling.guards[index]
    for index in numbers if checked else ():
        _check_for_nan(settling, index)


def _reads_of(sources: Sequence[Source], indices: Sequence[int]) -> set[int]:
    reads = (sources[index].read for index in indices)
    return {position for position in reads if position is not None}


def _experiments(reads: Sequence[Read]) -> list[tuple[Callable[[int], float], int]]:
    """Return the values to hand out; fewer experiments are needed if no read value is a float."""
    if not any(isinstance(read.value, float) for read in reads):
        return PROBES[: len(MARKS)]
    unnoticed = (
        isinstance(read.value, float) and read.kind == "number" and read.what not in FOLLOWED
        for read in reads
    )
    return [*PROBES, *GRID] if any(unnoticed) else PROBES


def _follow_outputs(
    settling: _Settling, numbers: Sequence[int], probes: Sequence[Summary], line: str
) -> None:
    """Find outputs that are a read number, perhaps rounded, and leave out others that changed."""
    sources, reads = settling.recording.sources, settling.recording.reads
    marks = {sources[index].read: index for index in numbers}
    marked = probes[: len(MARKS)]
    for leaves in settling.base.outputs.values():
        for path, content in leaves:
            if content[0] not in ("float", "int"):
                continue
            for read, index in marks.items():
                value = reads[read].value  # type: ignore[index]
                told = [mark(read, which) for which in MARKS]
                expression = recognised(content, value, path, told, marked)
                if isinstance(value, float) and expression is not None:
                    settling.expressions[path] = expression, settling.looked[index]
    for probe in probes:
        settling.loosen(probe, line, settling.expressions)


def _influence(
    settling: _Settling,
    numbers: Sequence[int],
    wanted: Collection[int],
    probe: Summary | Exception,
) -> TraceError:
    """Return the error for a value that was read and then used in the computation."""
    sources, reads = settling.recording.sources, settling.recording.reads
    raised = ""
    if isinstance(probe, Exception):
        raised = f" (with another value it raises {type(probe).__name__}: {probe})"
    for index in numbers:
        state = settling.behind(settling.looked[index])[0]
        if not state:
            return refuse_random(sources[index])
        return TraceError(
            "forward branches on, or computes with, a value that it "
            f"reads{at(sources[index].line)} and that depends on {state}, which changes in "
            f"training{raised}: a graph would repeat the value of its first batch. Use the tensor "
            "itself, or torch.where with both results."
        )
    read = reads[min(wanted)]
    name = {"__array__": "numpy.asarray on a tensor"}.get(read.what, f"Tensor.{read.what}")
    return TraceError(
        f"forward calls {name}{at(read.line)} and computes with the result: the values of one "
        f"batch would be used for every other batch{raised}. Compute with torch there, or return "
        "the tensor and convert it in prepare_batch."
    )


def _check_for_nan(settling: _Settling, index: int) -> None:
    """Make the step check that a number is not NaN, as forward itself does."""
    node = settling.looked[index]
    value: Any = node.meta["val"]
    if value.is_floating_point():
        graph = settling.recording.module.graph
        with graph.inserting_before(graph.output_node()):
            asked = graph.call_function(aten.isnan.default, (node,))
        asked.meta["val"] = torch.empty(value.shape, dtype=torch.bool)
        line = settling.recording.sources[index].line
        settling.conditions.append((Condition(False, line, True, True), asked))


def _settle_plain(settling: _Settling, plain: Sequence[int]) -> None:
    """Stop comparing numbers of the batch that do not affect loss, gradients, state or outputs."""
    sources = settling.recording.sources
    lines: dict[str, list[int]] = {}
    for index in plain:
        lines.setdefault(sources[index].line, []).append(index)
    for line, indices in lines.items():
        if "site-packages" in line or len(lines) > _MOST_FLIPPED:
            continue
        wanted = _reads_of(sources, indices)
        experiments = _experiments([settling.recording.reads[position] for position in wanted])
        if any(_matters(settling, settling.ask(altering(wanted, *p))) for p in experiments):
            continue
        settling.reported.append(line)
        for index in indices:
            del settling.guards[index]


def _matters(settling: _Settling, probe: Summary | Exception) -> bool:
    """Return whether anything differs except outputs that are left out of the graph."""
    if isinstance(probe, Exception) or probe.core != settling.base.core:
        return True
    mine, others = settling.base.outputs, probe.outputs
    keys = {*mine, *others} - settling.loose.keys()
    return any(mine.get(key) != others.get(key) for key in keys)


def _settle_truths(settling: _Settling, truths: Sequence[int]) -> None:
    sources, reads = settling.recording.sources, settling.recording.reads
    for index in truths:
        source, node = sources[index], settling.looked[index]
        raises, expected = source.is_assertion, True
        if source.read is None and not source.is_assertion:
            settling.guards[index] = source
            continue
        if source.read is not None:
            expected = bool(reads[source.read].value)
        if source.read is not None and len(truths) <= _MOST_FLIPPED:
            flipped = settling.ask(flipping(source.read))
            if isinstance(flipped, Summary) and flipped.core == settling.base.core:
                settling.loosen(flipped, source.line)
                settling.reported.append(source.line)
                continue
            raises = isinstance(flipped, Exception) and not isinstance(flipped, TraceError)
        condition = Condition(expected, source.line, raises, is_of_finiteness(node))
        settling.conditions.append((condition, node))


def _settled(settling: _Settling) -> Recording:
    joint, recording = settling.joint, settling.recording
    replaced = {path: expression for path, (expression, _) in settling.expressions.items()}
    spec, sources = settling.spec.reduced(settling.loose, replaced)
    first = 1 + len(joint.gradients)
    last = first + len(settling.spec.names)
    outputs = [
        settling.expressions[where][1]
        if isinstance(where, str)
        else settling.results[first + where]
        for where in sources
    ]
    guarded = [settling.looked[index] for index in settling.guards]
    checked = [node for _, node in settling.conditions]
    output = recording.module.graph.output_node()
    results = [*settling.results[:first], *outputs, *settling.results[last:]]
    output.args = ([*results, *guarded, *checked],)
    recording.module.recompile()
    joint.outputs = spec
    return Recording(
        recording.module,
        list(settling.guards.values()),
        recording.reads,
        [condition for condition, _ in settling.conditions],
        settling.loose,
        tuple(dict.fromkeys(settling.reported)),
    )
