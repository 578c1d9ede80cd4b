"""Forward and backward of a torch module as one functional aten graph, and that graph on JAX.

A minimal tracer for the tests of the lowerings; `medjax_torch.graph` is the real one.
"""

import contextlib
import warnings
from typing import NamedTuple

import jax
import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta
from torch.nn.attention import SDPBackend, sdpa_kernel

from medjax_torch.lowerings import custom_ops, decompositions, interpreter

aten = torch.ops.aten


class Result(NamedTuple):
    loss: torch.Tensor
    outputs: list
    gradients: list  # of the parameters, then of the floating-point inputs; None where unused
    state: list  # parameters, then buffers, after the pass


class Rewrites(torch.overrides.TorchFunctionMode):
    """Replaces functions that torch cannot trace."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.nn.functional.ctc_loss, torch.ctc_loss):
            return custom_ops.ctc_loss(*args, **kwargs)
        if func in (torch.nn.functional.embedding, torch.nn.functional.embedding_bag):
            kwargs["sparse"] = False
        return func(*args, **kwargs)


@contextlib.contextmanager
def tracing():
    warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN", UserWarning)
    with (
        Rewrites(),
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        torch.autograd.set_multithreading_enabled(False),
    ):
        yield


def weighted_sum(outputs):
    """A loss in which every element of every output counts, each differently."""
    total = torch.zeros(())
    for output in outputs:
        if output.is_complex():
            output = torch.view_as_real(output)
        if output.is_floating_point():
            weights = torch.cos(torch.arange(output.numel(), dtype=torch.float32))
            total = total + (output.float() * weights.reshape(output.shape)).sum()
    return total


def is_differentiable(tensor):
    return tensor.is_floating_point() or tensor.is_complex()


def joint(module, names, count):
    """Return the pass as a function of (parameters, buffers, inputs), flat, `count` parameters."""

    def run(*flat):
        leaves = [t.detach().clone().requires_grad_(True) for t in flat[:count]]
        buffers = [t.clone() for t in flat[count : len(names)]]
        inputs = [t.detach().clone() for t in flat[len(names) :]]
        inputs = [t.requires_grad_(is_differentiable(t)) for t in inputs]
        state = dict(zip(names, [*leaves, *buffers], strict=True))
        outputs = torch.func.functional_call(module, state, tuple(inputs))
        outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        loss = weighted_sum(outputs)
        wanted = leaves + [t for t in inputs if t.requires_grad]
        gradients = list(torch.autograd.grad(loss, wanted, allow_unused=True)) if wanted else []
        after = [state[name].detach() for name in names]
        return Result(loss.detach(), [t.detach() for t in outputs], gradients, after)

    return run


def arguments_of(module, inputs):
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    names = [*parameters, *buffers]
    flat = [t.detach() for t in [*parameters.values(), *buffers.values(), *inputs]]
    return names, len(parameters), flat


def eager(module, inputs):
    names, count, flat = arguments_of(module, inputs)
    return joint(module, names, count)(*flat)


def functional_graph(function, flat):
    """Trace with autograd, then once more without mutation and views."""
    with tracing():
        first = make_fx(
            lambda *args: torch.utils._pytree.tree_leaves(function(*args)),
            tracing_mode="fake",
            decomposition_table=decompositions.before_autograd(),
            _allow_non_fake_inputs=True,
            record_stack_traces=True,
        )(*flat)
        first.graph.set_codegen(torch.fx.graph.CodeGen())
        first.recompile()
        # The interpreter passes stack traces on from the first graph to the second.
        with torch.no_grad(), preserve_node_meta():
            replay = torch.fx.Interpreter(first).run
            graph = make_fx(
                torch.func.functionalize(replay, remove="mutations_and_views"),
                tracing_mode="fake",
                decomposition_table=decompositions.after_autograd(),
                _allow_non_fake_inputs=True,
            )(*flat)
    for node in list(graph.graph.nodes):
        if node.target is aten.copy_.default:  # a write to an input, which is already an output
            node.replace_all_uses_with(node.args[1])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def trace(module, inputs):
    names, count, flat = arguments_of(module, inputs)
    return functional_graph(joint(module, names, count), flat), flat


def to_jax(tensor):
    tensor = tensor.detach().resolve_conj()
    if tensor.dtype == torch.bfloat16:  # numpy has no bfloat16
        return jax.numpy.array(tensor.float().numpy(), jax.numpy.bfloat16)
    return jax.numpy.array(tensor.numpy(), copy=True)


def constants_of(graph):
    targets = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    return {target: to_jax(getattr(graph, target)) for target in targets}


# Compiling tiny graphs takes most of the tests' time, and results do not depend on it.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def on_jax(graph, flat, key=None, platform=None):
    """Evaluate the graph in JAX; the result is a flat list of numpy arrays."""
    constants = constants_of(graph)

    def evaluate(arguments, key):
        return interpreter.run(graph, arguments, key, constants, platform=platform)

    key = jax.random.key(0) if key is None else key
    function = jax.jit(evaluate, compiler_options=QUICKLY)
    return [
        None if value is None else np.asarray(value)
        for value in function([to_jax(t) for t in flat], key)
    ]
