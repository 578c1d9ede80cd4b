"""Check medjax on an accelerator, in one command of at most eight minutes on a bare machine.

    pip install ".[torch]" && python tests/accelerator/check.py
    python tests/accelerator/check.py --table  # the timings of benchmarks/accelerator.py, too

Each line says what was checked and what came out; the exit status is the number of failures. On a
CPU everything but the parts that need CUDA runs too, so the script can be tried anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NB_CASES = 30
WITHIN = {"float32": 1e-4, "bfloat16": 5e-2}
"""Allowed differences from the CPU's float32, in parts of the largest value."""

CHECKS: dict[str, Callable[[], str]] = {}


def check(function: Callable[[], str]) -> Callable[[], str]:
    """Add a check, which returns what it measured or raises; its docstring is its title."""
    CHECKS[function.__name__] = function
    return function


def main() -> int:
    """Run all checks and return the number of those that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table", action="store_true", help="run benchmarks/accelerator.py at the end"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(CHECKS), default=tuple(CHECKS))
    args = parser.parse_args()
    import jax

    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.device_kind} ({device.platform})", flush=True)
    failures = 0
    for name in args.only:
        began = time.monotonic()
        try:
            result = CHECKS[name]()
        except Exception:
            failures += 1
            result = f"FAILED\n{traceback.format_exc()}"
        title = CHECKS[name].__doc__
        print(f"{title} {result} ({time.monotonic() - began:.0f} s)", flush=True)
    stats = device.memory_stats() or {}
    print(f"Peak memory on the device: {stats.get('peak_bytes_in_use', 0) / 2**20:.0f} MiB")
    if args.table:
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "accelerator.py")], check=False)
    return failures


def apart(actual: object, expected: object) -> float:
    """Return the largest difference between two trees, in parts of their largest value."""
    import jax
    import numpy as np

    ones, others = (
        [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
        for tree in (actual, expected)
    )
    scale = max((np.abs(leaf).max(initial=0.0) for leaf in others), default=0.0) or 1.0
    pairs = zip(ones, others, strict=True)
    return max(float(np.abs(one - other).max(initial=0.0) / scale) for one, other in pairs)


@check
def taggers() -> str:
    """Loss, logits and gradients of TokenClassification:"""
    import jax
    import numpy as np

    from medjax import Mean
    from medjax.models import BertConfig, TokenClassifier

    sizes = BertConfig(
        vocab_size=999,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    ids = np.random.default_rng(0).integers(1, 999, (4, 64), dtype=np.int32)
    mask = (np.arange(64) < np.array([64, 40, 17, 3])[:, None]).astype(np.int32)
    labels = np.where(mask, ids % 5, -100)

    def results(attention, dtype):
        model = TokenClassifier(sizes, 5, attention_implementation=attention)
        params = model.init(jax.random.key(0), ids, mask, deterministic=True)["params"]

        def loss(params):
            cast = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
            logits = model.apply({"params": cast}, ids, mask, deterministic=True)
            logits = logits.astype("float32") * mask[..., None]
            chosen = jax.nn.log_softmax(logits)[..., :] * jax.nn.one_hot(labels, 5)
            return Mean(-chosen.sum(), mask.sum()).compute(), logits

        precision = "highest" if dtype == "float32" else "default"
        with jax.default_matmul_precision(precision):
            return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    with jax.default_device(jax.devices("cpu")[0]):
        expected = jax.device_get(results("xla", "float32"))
    told = []
    for attention, dtype in itertools.product(("xla", "cudnn"), ("float32", "bfloat16")):
        parts = zip(jax.device_get(results(attention, dtype)), expected, strict=True)
        # A key's bias has no gradient but noise, so gradients are compared with the largest.
        difference = max(apart(one, other) for one, other in parts)
        assert difference < WITHIN[dtype], (attention, dtype, difference)
        told.append(f"{attention} {dtype} {difference:.0e}")
    return ", ".join(told)


@check
def graphs() -> str:
    """Torch modules, their gradients and state:"""
    import idiom_cases  # noqa: F401
    import layer_cases  # noqa: F401
    import loss_cases  # noqa: F401
    import sequence_cases  # noqa: F401
    from torch_cases import CASES

    worst, failed = ("", 0.0), []
    names = list(CASES)[:: max(1, len(CASES) // NB_CASES)][:NB_CASES]
    for name in names:
        try:
            difference = graph_apart(*CASES[name]())
        except Exception as error:  # the others are checked all the same
            failed.append((name, f"{type(error).__name__}: {str(error)[:300]}"))
            continue
        worst = max(worst, (name, difference), key=lambda pair: pair[1])
        if difference > 1e-3:
            failed.append((name, f"{difference:.0e}"))
    assert not failed, "\n".join(map(str, failed))
    return f"{len(names)} modules, at most {worst[1]:.0e} from torch on the CPU ({worst[0]})"


def graph_apart(module: Any, inputs: Any) -> float:
    """Return how far the graph of a torch module is from torch on the CPU."""
    import jax
    from torch_graphs import eager, on_jax, trace

    expected = eager(module, inputs)
    graph, flat = trace(module, inputs)
    leaves = [expected.loss, *expected.outputs, *expected.gradients, *expected.state]
    with jax.default_matmul_precision("highest"):
        pairs = zip(on_jax(graph, flat), leaves, strict=True)
    return max(
        apart(value, leaf.detach().resolve_conj().float().numpy())
        for value, leaf in pairs
        if leaf is not None and value is not None and not leaf.is_complex()
    )


@check
def resuming() -> str:
    """A run that is interrupted and resumed:"""
    import jax
    import numpy as np
    from tiny import config, sentences, tagger

    import medjax

    class Stops(medjax.TrainerCallback):
        def on_step_begin(self, step_idx: int, phase: str) -> None:
            if phase == "train" and step_idx == 5:
                raise KeyboardInterrupt

    def run(folder, **more):
        options = medjax.Options(save_interval_steps=3, length_ladder=(32,))
        return medjax.train(
            tagger(), config(folder, nb_training_epochs=2), sentences(40), sentences(9, seed=1),
            options=options, callback=more.pop("callback", []), **more,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        expected = run(Path(folder, "whole"))
        with contextlib.suppress(KeyboardInterrupt):
            run(Path(folder, "cut"), callback=[Stops()])
        resumed = run(Path(folder, "cut"), resume="auto")
    assert resumed.history == expected.history
    for one, other in zip(
        jax.tree.leaves(resumed.state.params), jax.tree.leaves(expected.state.params), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    return "the same bit for bit"


@check
def drop_in() -> str:
    """A torch component on its own device, trained by the drop-in:"""
    import torch
    from trained import DATA, Classifier

    from medjax_torch import Trainer, TrainerConfig

    def train(device):
        component = Classifier()
        component.device = torch.device(device)
        component.model.to(device)
        with tempfile.TemporaryDirectory() as folder:
            config = TrainerConfig(folder, 0.01, 2, batch_size=8, seed=1)
            history = Trainer(component, config, DATA[:32], DATA[32:], callback=[]).train()
        assert all(p.device.type == torch.device(device).type for p in component.model.parameters())
        return history

    if not torch.cuda.is_available():
        return f"torch has no CUDA here; on the CPU {train('cpu')[-1]['eval']}"
    there, here = train("cuda:0"), train("cpu")
    assert (
        apart([row["eval"]["loss"] for row in there], [row["eval"]["loss"] for row in here]) < 1e-3
    )
    return f"on cuda:0 {there[-1]['eval']}"


if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    sys.path[:0] = [str(ROOT / part) for part in ("tests", "tests/interop", "interop", ".")]
    raise SystemExit(main())
