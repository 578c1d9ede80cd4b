"""What forward reads from tensors while it is recorded, and the values it receives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

from medjax_torch.graph.environment import REPLACEMENTS
from medjax_torch.graph.errors import TraceError, at, line_here
from medjax_torch.graph.guards import READ
from medjax_torch.graph.pointers import as_tensor, window
from medjax_torch.graph.read_numbers import (
    Expression,
    ReadNumber,
    itself,
    plain,
    read_number,
)
from medjax_torch.torch_internals import disable_proxy_modes_tracing, get_proxy_mode

aten = torch.ops.aten

Kind = Literal["truth", "number", "array"]


class Read(NamedTuple):
    """A value of a tensor that was handed to Python.

    Attributes
    ----------
    kind : {"truth", "number", "array"}
        A truth value, a number, or all elements as a numpy array or a list.
    value : object
        The value handed out; for an array, a number of its kind.
    line, what : str
        The component's line that read it, and the function it used.
    is_followed : bool
        Whether the graph computes with the tensor itself where Python used the number.
    """

    kind: Kind
    value: Any
    line: str
    what: str
    is_followed: bool = False


Answer = Callable[[int, Read, Any], Any]
"""Takes the position of a read, the read and the tensor's own value; returns what to hand out."""


class Reader(TorchFunctionMode):
    """Keeps track of what Python reads from the tensors of a recording made on real values.

    A number is handed out as one that remembers where it comes from. Comparisons with it are made
    on tensors, so that they become part of the recording. What depends on no input is a constant
    and is not followed.

    Parameters
    ----------
    nb_parameters : int
        How many of the recording's inputs, counted from the first, are parameters.
    answer : callable, optional
        Decides which values Python receives; by default, the true ones.

    Attributes
    ----------
    reads : list of Read
        All reads, in order.
    """

    def __init__(self, nb_parameters: int, answer: Answer | None = None) -> None:
        super().__init__()
        self.reads: list[Read] = []
        self._answer = answer
        self._nb_parameters = nb_parameters
        self._nb_inputs = 0
        # Nodes that depend on an input, each with whether it depends on a parameter.
        self._seen: dict[fx.Node, bool] = {}
        self._latest: fx.Node | None = None
        self._positions: dict[int, int] = {}
        self._has_written = False
        self._copies: list[tuple[Any, Tensor, str]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if get_proxy_mode() is None:
            return func(*args, **kwargs)
        look = _LOOKS.get(func)
        if look is not None:
            return look(self, func, *args, **kwargs)
        if self.reads and _holds_reads(args, kwargs):
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                return self._indexed(func, *args)
            if func is Tensor.fill_ and isinstance(args[1], ReadNumber):
                return func(args[0], as_tensor(args[1], args[0]))
            if getattr(func, "__name__", "") in _ARITHMETIC:
                numbers, args = args, _as_tensors(args)
                if args is not numbers:
                    for number in filter(_is_read, numbers):
                        self._follow(number.expression.tensors())
            args, kwargs = _without_reads(args), _without_reads(kwargs)
        return func(*args, **kwargs)

    def check_copies(self) -> None:
        """Raise TraceError if forward wrote to an array that shares its memory with a tensor."""
        for array, before, line in self._copies:
            if array.tobytes() != before.numpy().tobytes():
                raise TraceError(
                    "forward writes to a tensor through the numpy array that it "
                    f"obtained{at(line)}, which a graph cannot record. Write to the tensor, or to "
                    "a copy of the array."
                )

    def _indexed(self, func: Any, tensor: Tensor, index: Any, *value: Any) -> Any:
        if value and isinstance(value[0], ReadNumber):
            value = (as_tensor(value[0], tensor),)
        place = window(index)
        if place is None:
            return func(tensor, _without_reads(index), *map(_without_reads, value))
        if not self._truth(Tensor.__bool__, place.fits(tensor)):
            raise IndexError(
                f"a slice of {place.length} elements starts beyond the end of dimension "
                f"{place.dim}, which has size {tensor.shape[place.dim]}, in "
                f"forward{at(line_here())}"
            )
        self._follow(place.sources)
        return place.write(tensor, *value) if value else place.read(tensor)

    def _follow(self, sources: Iterable[Tensor]) -> None:
        """Note that the graph computes with these tensors where Python used their numbers."""
        for source in sources:
            position = self._positions[id(source)]
            self.reads[position] = self.reads[position]._replace(is_followed=True)

    def _truth(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if func is Tensor.__bool__ and tensor.dtype != torch.bool:
            tensor = tensor != 0
        value = func(tensor, *args, **kwargs)
        return self._noted("truth", func, value)

    def _item(self, func: Any, tensor: Tensor) -> Any:
        if tensor.dtype == torch.bool:
            return self._truth(func, tensor)
        source = tensor.detach().clone().reshape(()) if tensor.numel() == 1 else tensor
        value = func(source)
        told = self._noted("number", func, value)
        if not self._depends(_last()):
            return told
        altered = told is not value
        self._positions[id(source)] = len(self.reads) - 1
        return read_number(told, Expression(itself, (source,)), is_altered=altered)

    def _number(self, func: Any, tensor: Tensor) -> Any:
        if tensor.dtype == torch.bool:
            return func(tensor)
        return self._noted("number", func, func(tensor))

    def _format(self, func: Any, tensor: Tensor, spec: str) -> Any:
        if tensor.dim() or tensor.dtype == torch.bool:
            return format(self._peek(func, tensor), spec)
        return format(plain(self._item(Tensor.item, tensor)), spec)

    def _text(self, func: Any, tensor: Tensor, **kwargs: Any) -> str:
        with disable_proxy_modes_tracing():
            return str(func(self._peek(func, tensor), **kwargs))

    def _array(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        values = self._peek(func, tensor, requires_grad=tensor.requires_grad)
        with disable_proxy_modes_tracing():
            array = func(values, *args, **kwargs)
            if values.dtype in _OF_NUMPY:
                memory = values.detach()
                self._copies.append((memory.numpy(), memory.clone(), self._line()))
        return array

    def _list(self, func: Any, tensor: Tensor) -> Any:
        """Return the values one by one, or all at once if they could not be guards anyway."""
        tensor.detach()
        self._depends(node := _last())
        if tensor.dim() and node is not None and self._seen.get(node):
            return self._array(func, tensor)
        with self:
            return REPLACEMENTS[func](tensor)

    def _peek(self, func: Any, tensor: Tensor, *, requires_grad: bool = False) -> Tensor:
        """Return a copy of a tensor's values without recording it."""
        tensor.detach()  # the node recorded last shows what the values depend on
        depends = self._depends(_last())
        with disable_proxy_modes_tracing():
            values = tensor.detach().clone()
            if depends:
                like = 0.0 if values.is_floating_point() else 0
                read = Read("array", like, self._line(), getattr(func, "__name__", ""))
                values = self._told(read, values)
            return values.requires_grad_(requires_grad)

    def _noted(self, kind: Kind, func: Any, value: Any) -> Any:
        node = _last()
        if node is None or node.target not in _READING or not self._depends(node):
            return value
        node.meta[READ] = len(self.reads)
        return self._told(Read(kind, value, self._line(), getattr(func, "__name__", "")), value)

    def _line(self) -> str:
        # With altered answers nobody needs the line, and finding it takes time.
        return line_here() if self._answer is None else ""

    def _told(self, read: Read, value: Any) -> Any:
        position = len(self.reads)
        self.reads.append(read)
        return value if self._answer is None else self._answer(position, read, value)

    def _depends(self, node: fx.Node | None) -> bool:
        """Return whether a node may depend on an input of the recording or on a random number."""
        if node is None:
            return False
        latest = self._latest
        following = iter(node.graph.nodes) if latest is None else _after(latest)
        for one in following:
            of_parameters = [self._seen[s] for s in one.all_input_nodes if s in self._seen]
            if one.op == "placeholder":
                of_parameters = [self._nb_inputs < self._nb_parameters]
                self._nb_inputs += 1
            elif torch.Tag.nondeterministic_seeded in getattr(one.target, "tags", ()):
                of_parameters.append(False)
            if of_parameters:
                self._seen[one] = any(of_parameters)
                # Views of tensors that were written to are not tracked.
                self._has_written |= getattr(one.target, "_schema", None) is not None and (
                    one.target._schema.is_mutable
                )
            self._latest = one
        return node in self._seen or self._has_written


def _last() -> fx.Node | None:
    mode = get_proxy_mode()
    return None if mode is None else next(iter(reversed(mode.tracer.graph.nodes)), None)


def _after(node: fx.Node) -> Any:
    while node.next.op != "root":
        node = node.next
        yield node


_READING = (aten._local_scalar_dense.default, aten.equal.default)
_OF_NUMPY = (
    *(torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
)

_LOOKS: dict[Any, Callable[..., Any]] = {
    Tensor.__bool__: Reader._truth,
    Tensor.equal: Reader._truth,
    torch.equal: Reader._truth,
    Tensor.item: Reader._item,
    Tensor.__float__: Reader._number,
    Tensor.__int__: Reader._number,
    Tensor.__index__: Reader._number,
    Tensor.__format__: Reader._format,
    Tensor.__repr__: Reader._text,
    Tensor.tolist: Reader._list,
    Tensor.numpy: Reader._array,
    Tensor.__array__: Reader._array,
}

PASSED_ON = {function: function for function in (Tensor.tolist, Tensor.numpy, Tensor.__array__)}
"""Functions left to the reader, overriding the replacements in `environment`."""

_ARITHMETIC = frozenset(
    f"{left}{name}{right}"
    for name in ("add", "sub", "mul", "div", "truediv")
    for left, right in (("", ""), ("", "_"), ("__", "__"), ("__r", "__"), ("__i", "__"))
) | {"true_divide", "multiply", "subtract", "divide", "rsub"}


def _as_tensors(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Replace numbers that were read by scalar tensors; torch's result has a single dtype."""
    others = [value for value in args if isinstance(value, Tensor)]
    if not others or any(isinstance(v, ReadNumber) and v.is_altered for v in args[2:]):
        return args
    dtype = others[0].dtype if others[0].is_floating_point() else torch.get_default_dtype()

    def convert(value: Any) -> Any:
        if not isinstance(value, ReadNumber):
            return value
        if isinstance(value, int) and not others[0].is_floating_point():
            return value.expression.on_tensors().to(others[0].dtype)
        return value.expression.on_tensors().to(dtype)

    return (*map(convert, args[:2]), *args[2:])


def _is_read(value: Any) -> bool:
    return isinstance(value, ReadNumber)


def _holds_reads(*values: Any) -> bool:
    return any(
        isinstance(value, ReadNumber)
        or (isinstance(value, tuple | list) and _holds_reads(*value))
        or (isinstance(value, dict) and _holds_reads(*value.values()))
        or (isinstance(value, slice) and _holds_reads(value.start, value.stop, value.step))
        for value in values
    )


def _without_reads(value: Any) -> Any:
    """Return arguments in which numbers that were read are plain Python numbers."""
    if type(value) in (tuple, list):
        return type(value)(map(_without_reads, value))
    if type(value) is dict:
        return {name: _without_reads(each) for name, each in value.items()}
    if isinstance(value, slice):
        return slice(*map(plain, (value.start, value.stop, value.step)))
    return plain(value)
