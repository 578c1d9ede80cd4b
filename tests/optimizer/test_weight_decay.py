"""Which parameters `Options.weight_decay` applies to."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn
from flax import traverse_util

from medjax import Options
from medjax.models import BertConfig, make_encoder
from medjax.optimizer import decays, make_optimizer
from medjax.optimizer.decay import SelfDecaying

X = jnp.ones((2, 5, 8))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        x = nn.LayerNorm()(nn.MultiHeadDotProductAttention(num_heads=2)(x))
        return nn.RMSNorm()(nn.Dense(8)(x)), None


class Stack(nn.Module):
    """Layers stacked along the first axis, as by `nn.scan` or `nn.vmap`."""

    lifted: str

    @nn.compact
    def __call__(self, x):
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        if self.lifted == "scan":
            return nn.scan(Layer, length=3, **axes)()(x, None)[0]
        stacked = nn.vmap(Layer, in_axes=(0, None), **axes)
        return stacked()(jnp.stack([x] * 3), None)[0]


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.LSTMCell(8))(x)


class Boxed(nn.Module):
    @nn.compact
    def __call__(self, x):
        zeros = nn.with_partitioning(nn.initializers.zeros, (None, None))
        kernel = nn.with_partitioning(nn.initializers.ones, (None, None))
        return nn.DenseGeneral((2, 4), kernel_init=kernel, bias_init=zeros)(x)


def spared(params):
    """Return the paths that do not decay and have two or more dimensions, and those that do."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    chosen = dict(zip([path for path, _ in flat], jax.tree.leaves(decays(params)), strict=True))
    names = {path: jax.tree_util.keystr(path, simple=True, separator="/") for path in chosen}
    return (
        {names[path] for path, leaf in flat if leaf.ndim > 1 and not chosen[path]},
        {names[path] for path in chosen if chosen[path]},
    )


ATTENTION = [f"MultiHeadDotProductAttention_0/{part}" for part in ("query", "key", "value")]
OF_LAYER = {
    *(f"{part}/bias" for part in ATTENTION),
    "MultiHeadDotProductAttention_0/out/bias",
    "LayerNorm_0/bias",
    "LayerNorm_0/scale",
    "RMSNorm_0/scale",
    "Dense_0/bias",
}
KERNELS = {
    *(f"{part}/kernel" for part in ATTENTION),
    "MultiHeadDotProductAttention_0/out/kernel",
    "Dense_0/kernel",
}


def below(name, paths):
    return {f"{name}/{path}" for path in paths}


@pytest.mark.parametrize(
    ("module", "x", "saved", "decayed"),
    [
        (nn.Dense(4), X, set(), {"kernel"}),
        (nn.DenseGeneral((2, 4)), X, {"bias"}, {"kernel"}),
        (
            nn.MultiHeadDotProductAttention(num_heads=2),
            X,
            {"query/bias", "key/bias", "value/bias"},
            {"query/kernel", "key/kernel", "value/kernel", "out/kernel"},
        ),
        (nn.LayerNorm(), X, set(), set()),
        (nn.LayerNorm(feature_axes=(1, 2)), X, {"bias", "scale"}, set()),
        (nn.BatchNorm(use_running_average=True, axis=(1, 2)), X, {"bias", "scale"}, set()),
        (nn.GroupNorm(2), X, set(), set()),
        (nn.Embed(7, 4), jnp.ones((2, 3), jnp.int32), set(), {"embedding"}),
        (nn.Conv(4, (3,)), X, set(), {"kernel"}),
        (nn.ConvTranspose(4, (3,)), X, set(), {"kernel"}),
        (nn.ConvLocal(4, (3,)), X, {"bias"}, {"kernel"}),
        (Recurrent(), X, set(), {f"LSTMCell_0/{a}{b}/kernel" for a in "ih" for b in "ifgo"}),
        (Layer(), (X, None), {f"{part}/bias" for part in ATTENTION}, KERNELS),
        (Stack("scan"), X, below("ScanLayer_0", OF_LAYER), below("ScanLayer_0", KERNELS)),
        (Stack("vmap"), X, below("VmapLayer_0", OF_LAYER), below("VmapLayer_0", KERNELS)),
        (Boxed(), X, {"DenseGeneral_0/bias/value"}, {"DenseGeneral_0/kernel/value"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_biases_and_scales_of_flax_do_not_decay_whatever_their_shape(module, x, saved, decayed):
    inputs = x if isinstance(x, tuple) else (x,)
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    assert spared(variables["params"]) == (saved, decayed)


@pytest.mark.parametrize(
    ("name", "shape", "decayed"),
    [
        ("encoder.layer.0.attention.self.query.weight", (8, 8), True),
        ("encoder.layer.0.output.LayerNorm.weight", (8,), False),
        ("norm.weight", (4, 8), False),  # torch.nn.LayerNorm((4, 8))
        ("blocks.1.norm1.weight", (4, 8), False),
        ("batch_normalization_2.weight", (4, 8), False),
        ("bn1.weight", (4, 8), False),
        ("ln_f.weight", (4, 8), False),
        ("normaliser_table.weight", (4, 8), True),
        ("normal.weight", (4, 8), True),
        ("LayerNorm_0.kernel", (4, 8), True),
        ("relative_attention_bias.weight", (32, 8), True),  # an embedding
        ("relative.bias", (1, 8, 1), False),
        ("linear.weight", (1,), False),
        ("weight", (4, 8), True),
        ("w", (4, 8), True),
        ("WeightNorm_0.Dense_0/kernel/scale", (4, 8), False),
        ("cls_token", (1, 1, 8), True),
    ],
)
def test_parameter_names_of_other_libraries(name, shape, decayed):
    assert decays({name: jax.ShapeDtypeStruct(shape, jnp.float32)}) == {name: decayed}


@pytest.mark.parametrize(
    "leaves", [[jnp.ones((2, 2)), jnp.ones(2)], (jnp.ones((2, 2)), jnp.ones(2))]
)
def test_parameters_without_names_go_by_their_dimensions(leaves):
    assert jax.tree.leaves(decays(leaves)) == [True, False]
    assert decays(leaves[0]) is True


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra"]
)
def test_all_matrices_of_the_encoders_decay(family):
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "max_position_embeddings": 16}
    if family == "distilbert":
        sizes["type_vocab_size"] = 0
    module = make_encoder(BertConfig(model_type=family, **sizes))
    ids = jnp.ones((1, 4), jnp.int32)
    init = functools.partial(module.init, deterministic=True)
    variables = jax.eval_shape(init, jax.random.key(0), ids, ids)
    params = variables["params"]
    assert decays(params) == jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    assert {path[-1] for path in traverse_util.flatten_dict(params)} >= {"kernel", "embedding"}


def test_an_optimizer_that_decays_itself_has_the_state_of_any_other():
    options = Options(weight_decay=0.5, max_grad_norm=1.0)
    params = {"kernel": jnp.ones((2, 2))}
    gradients = jax.tree.map(jnp.zeros_like, params)
    results = {}
    for kind in (optax.GradientTransformation, SelfDecaying):
        tx = make_optimizer(lambda rate, kind=kind: kind(*optax.sgd(rate)), options)
        state = tx.init(params, learning_rate=0.5)
        results[kind] = tx.update(gradients, state, params)
    (decayed, state), (left, same) = results.values()
    assert jax.tree.structure(state) == jax.tree.structure(same)
    assert decayed["kernel"].tolist() == [[-0.25, -0.25]] * 2
    assert not left["kernel"].any()
