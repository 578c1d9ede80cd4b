"""Compiled steps: what they were compiled for, how long that took, and out-of-memory errors."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

import jax

from medjax.runtime.allocator import give_back_memory
from medjax.runtime.aside import compile_aside
from medjax.runtime.traces import tracing
from medjax.runtime.waiting import size_of, tell_wait, waiting_for
from medjax.target import tracing_for

__all__ = [
    "Compilation",
    "Compiled",
    "CompiledStep",
    "OutOfMemoryError",
    "explaining_memory",
    "is_out_of_memory",
]

logger = logging.getLogger("medjax")

P = ParamSpec("P")
R = TypeVar("R")

_ADVICE = {
    "training": (
        "Lower TrainerConfig.batch_size and raise gradient_accumulation_steps by the same factor, "
        "which keeps the effective batch size; truncate the texts and end Options.length_ladder at "
        "a shorter length; set Options(precision='bfloat16'); or checkpoint gradients "
        "(gradient_checkpointing=True of the component, gradient_checkpointing_enable() of a "
        "Hugging Face model), which recomputes activations instead of storing them"
    ),
    "evaluation": (
        "Lower TrainerConfig.batch_size (gradient_accumulation_steps keeps the effective batch "
        "size of training); truncate the texts and end Options.length_ladder at a shorter length; "
        "or set Options(precision='bfloat16')"
    ),
    "prediction": "Lower batch_size, or max_length of the component",
}
"""How to use less memory, by phase."""


class Compilation(NamedTuple):
    """One compilation of a step.

    Attributes
    ----------
    batch : str
        Columns of the batch with dtype and shape, for instance ``input_ids int32[16,64]``, or the
        `subject` of the `CompiledStep`.
    size : int
        Number of elements in the batch; 0 if the step has a `subject`.
    seconds : float
        How long it took to trace and compile, or to load the program from the cache on disk.

    Examples
    --------
    >>> Compilation("input_ids int32[16,64]", size=1024, seconds=1.5).size
    1024
    """

    batch: str
    size: int
    seconds: float


class _Begun(NamedTuple):
    """A compilation in another thread.

    Attributes
    ----------
    number : int
        Its number among the step's compilations.
    began : float
        When it was begun.
    reason : str
        What is said while it is waited for.
    done : Future
        Gives the time when it was done.
    """

    number: int
    began: float
    reason: str
    done: Future[float]


class Compiled(Protocol):
    """Tells what a step is part of and what it was compiled for."""

    @property
    def phase(self) -> str:
        """Training, evaluation or prediction."""
        ...

    @property
    def compilations(self) -> Sequence[Compilation]:
        """The compilations so far, in order."""
        ...


class OutOfMemoryError(RuntimeError):
    """A device ran out of memory in a step; the error of XLA is chained.

    Attributes
    ----------
    phase : str
        ``"training"``, ``"evaluation"`` or ``"prediction"``.
    batch : str or None
        Columns of the batch with dtype and shape. If the device noticed only after later steps were
        queued, those of the largest batch so far.
    """

    def __init__(self, phase: str, batch: str | None) -> None:
        super().__init__(phase, batch)
        self.phase = phase
        self.batch = batch

    def __str__(self) -> str:
        batch = "" if self.batch is None else f" with a batch of {self.batch}"
        return f"the device ran out of memory in {self.phase}{batch}. {_ADVICE[self.phase]}"


class CompiledStep(Generic[P, R]):
    """Jits a step and records its compilations; the second argument of the step is the batch.

    Parameters
    ----------
    function : callable
        The function to compile.
    phase : {"training", "evaluation", "prediction"}
        What the step is part of.
    subject : str, optional
        What it is compiled for; by default the columns of the batch.
    hides : collection of str
        Entries of the batch that its description leaves out.
    keeps : object, optional
        Kept alive as long as the step, because its arguments refer to it weakly.
    compilations : list of Compilation, optional
        Where to record compilations, for steps that share one record.
    platform : str, optional
        Platform that it runs on; by default that of JAX's backend.
    deterministic : bool
        Whether it has to compute the same bits in every run; see `Options.deterministic`.
    options_for : callable, optional
        Gives the ``compiler_options`` of the program for each shape of batch, from its jaxpr; by
        default they are those in `jit_options`.
    **jit_options
        Options of `jax.jit`.

    Attributes
    ----------
    compilations : list of Compilation
        One for each time the function was traced, in order.

    Examples
    --------
    >>> step = CompiledStep(lambda state, batch: state + batch["x"].sum(), "training")
    >>> float(step(1.0, {"x": jax.numpy.ones((2, 3))}))
    7.0
    >>> step.compilations[0].batch
    'x float32[2,3]'
    """

    def __init__(
        self,
        function: Callable[P, R],
        phase: str,
        *,
        subject: str | None = None,
        hides: Collection[str] = (),
        keeps: object = None,
        compilations: list[Compilation] | None = None,
        platform: str | None = None,
        deterministic: bool = False,
        options_for: Callable[[Any], Mapping[str, Any]] | None = None,
        **jit_options: Any,
    ) -> None:
        self.phase = phase
        self.compilations: list[Compilation] = [] if compilations is None else compilations
        self._subject = subject
        self._hides = frozenset(hides)
        self._keeps = keeps
        self._begun: list[_Begun] = []

        @functools.wraps(function)
        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            self.compilations.append(Compilation(*self._described(args), seconds=0.0))
            tell_wait(self._reason(args))
            with tracing_for(platform, deterministic=deterministic), tracing():
                return function(*args, **kwargs)

        self._function, self._counted, self._jit_options = function, counted, jit_options
        self._jitted = jax.jit(counted, **jit_options)
        self._options_for = options_for
        self._by_shape: dict[Hashable, Any] = {}
        self._by_options: dict[frozenset[tuple[str, Any]], Any] = {}

    @property
    def nb_compilations(self) -> int:
        """How often the step was compiled."""
        return len(self.compilations)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step; the first call with new shapes compiles it.

        Raises
        ------
        OutOfMemoryError
            If the device immediately notices that it lacks memory; `explaining_memory` handles the
            case that it notices later.
        """
        self._await_begun()
        nb_before = len(self.compilations)
        began = time.perf_counter()
        try:
            result: R = self._program(args, kwargs)(*args, **kwargs)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(self.phase, self._described(args)[0]) from error
        if len(self.compilations) > nb_before:
            self._record(len(self.compilations) - 1, time.perf_counter() - began)
            give_back_memory(sum(leaf.nbytes for leaf in jax.tree.leaves(result)))
            tell_wait(None)
        return result

    def compile_ahead(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Begin to compile the step for arguments that it is about to be called with.

        It is traced in this thread and compiled in another. The next call waits until everything
        that was begun is compiled, so results do not depend on how long that takes.

        Returns
        -------
        pytree of jax.ShapeDtypeStruct
            The results, with the shardings that are known before it is compiled.

        Examples
        --------
        >>> step = CompiledStep(lambda state, batch: state + batch["x"].sum(), "training")
        >>> batch = {"x": jax.numpy.ones((2, 3))}
        >>> step.compile_ahead(1.0, batch).dtype
        dtype('float32')
        >>> float(step(1.0, batch)), step.nb_compilations
        (7.0, 1)
        """
        nb_before = len(self.compilations)
        began = time.perf_counter()
        lowered = self._program(args, kwargs).lower(*args, **kwargs)
        if len(self.compilations) > nb_before:
            number = len(self.compilations) - 1
            self._begun.append(_Begun(number, began, self._reason(args), compile_aside(lowered)))
            tell_wait(None)
        return lowered.out_info

    def _program(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the jitted function for the shapes of a batch."""
        if self._options_for is None:
            return self._jitted
        leaves, structure = jax.tree.flatten(args[1])
        kinds = [(getattr(x, "shape", ()), getattr(x, "dtype", type(x))) for x in leaves]
        shapes = structure, tuple(kinds)
        if shapes not in self._by_shape:
            # JAX traces only once: the trace belongs to the function, not to its options.
            chosen = self._options_for(self._jitted.trace(*args, **kwargs).jaxpr)
            options = {**self._jit_options, "compiler_options": dict(chosen)}
            jitted = jax.jit(self._counted, **options)
            self._by_shape[shapes] = self._by_options.setdefault(frozenset(chosen.items()), jitted)
        return self._by_shape[shapes]

    def _await_begun(self) -> None:
        """Wait for what `compile_ahead` began; where that fails, the call says why."""
        begun, self._begun = self._begun, []
        for each in begun:
            with waiting_for(each.reason):
                each.done.exception()
            if each.done.exception() is None:
                self._record(each.number, each.done.result() - each.began)

    def _record(self, number: int, seconds: float) -> None:
        made = self.compilations[number]._replace(seconds=seconds)
        self.compilations[number] = made
        logger.info("Compiled %s for %s in %.1f s", self.phase, made.batch, made.seconds)

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> jax.stages.Lowered:
        """Lower the step for arguments, or their abstract values, without running it.

        ``lower(...).compile().memory_analysis()`` tells how much memory the step needs.
        """
        lowered: jax.stages.Lowered = self._program(args, kwargs).lower(*args, **kwargs)
        return lowered

    def export(self, platform: str, *args: P.args, **kwargs: P.kwargs) -> jax.export.Exported:
        """Lower the step for a platform that this machine need not have.

        Parameters
        ----------
        platform : {"cpu", "gpu", "tpu"}
            The platform; "gpu" means CUDA.
        *args, **kwargs
            Arguments of the step, or their abstract values.

        Examples
        --------
        >>> step = CompiledStep(lambda state, batch: state + batch["x"].sum(), "training")
        >>> step.export("tpu", 1.0, {"x": jax.numpy.ones((2, 3))}).platforms
        ('tpu',)
        """
        options = {n: v for n, v in self._jit_options.items() if n != "compiler_options"}

        def traced(*args: P.args, **kwargs: P.kwargs) -> R:
            with tracing_for(platform):
                return self._function(*args, **kwargs)

        name = "cuda" if platform == "gpu" else platform
        return jax.export.export(jax.jit(traced, **options), platforms=(name,))(*args, **kwargs)

    def _described(self, args: Sequence[Any]) -> tuple[str, int]:
        return _described(args[1], self._hides) if self._subject is None else (self._subject, 0)

    def _reason(self, args: Sequence[Any]) -> str:
        """Return what is told while it is compiled."""
        return f"compiling {self._subject or size_of(args[1])}"


@contextlib.contextmanager
def explaining_memory(*steps: Compiled) -> Iterator[None]:
    """Say what to lower when a step that was queued in the block runs out of memory.

    Parameters
    ----------
    *steps : Compiled
        The steps that are run in the block. The device may notice only after later steps were
        queued.

    Raises
    ------
    OutOfMemoryError
        Instead of XLA's error.

    Examples
    --------
    >>> step = CompiledStep(lambda state, batch: state, "training")
    >>> with explaining_memory(step):
    ...     state = step(1.0, {})
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        compilations = (made for step in steps for made in step.compilations)
        largest = max(compilations, key=lambda made: made.size, default=None)
        batch = None if largest is None else largest.batch
        raise OutOfMemoryError(steps[0].phase, batch) from error


def is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """Return whether the memory of a device did not suffice."""
    # The status code is lost if a later step raises the error.
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def _described(batch: Any, hides: Collection[str]) -> tuple[str, int]:
    """Return names, dtypes and shapes of the columns of a batch, and how many elements it has."""
    leaves = [
        (name, leaf)
        for path, leaf in jax.tree.leaves_with_path(batch)
        if (name := jax.tree_util.keystr(path[-1:], simple=True)) not in hides
    ]
    columns = [
        f"{name} {leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for name, leaf in leaves
        if leaf.shape
    ]
    return ", ".join(columns), sum(math.prod(leaf.shape) for _, leaf in leaves)
