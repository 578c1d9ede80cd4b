"""Calls of the operators that draw random numbers, with the distribution of what they draw."""

import torch

aten = torch.ops.aten
SIZE = 4096
WEIGHTS = torch.tensor([1.0, 2.0, 0.0, 5.0])

CAUCHY = aten.cauchy.default
"""A distribution without mean and standard deviation."""

# Operator: arguments, keyword arguments, mean and standard deviation of a draw.
DRAWS = {
    aten._sample_dirichlet.default: ((torch.full((SIZE, 2), 2.0),), {}, 0.5, 20**-0.5),
    aten._standard_gamma.default: ((torch.full((SIZE,), 4.0),), {}, 4.0, 2.0),
    aten.binomial.default: ((torch.full((SIZE,), 10.0), torch.full((SIZE,), 0.3)), {}, 3, 2.1**0.5),
    aten.geometric.default: ((torch.zeros(SIZE), 0.5), {}, 2.0, 2**0.5),
    aten.log_normal.default: ((torch.zeros(SIZE), 0.0, 0.5), {}, 1.1331, 0.6039),
    aten.bernoulli.default: ((torch.full((SIZE,), 0.3),), {}, 0.3, 0.21**0.5),
    aten.bernoulli.p: ((torch.zeros(SIZE), 0.3), {}, 0.3, 0.21**0.5),
    aten.bernoulli.Tensor: ((torch.zeros(SIZE), torch.tensor(0.3)), {}, 0.3, 0.21**0.5),
    aten.exponential.default: ((torch.zeros(SIZE), 2.0), {}, 0.5, 0.5),
    aten.multinomial.default: ((WEIGHTS, SIZE, True), {}, 17 / 8, 1.269),
    aten.native_dropout.default: ((torch.ones(SIZE), 0.2, True), {}, 1.0, 0.5),
    aten.normal.Tensor_Tensor: ((torch.ones(SIZE), torch.full((SIZE,), 2.0)), {}, 1.0, 2.0),
    aten.normal.Tensor_float: ((torch.ones(SIZE), 2.0), {}, 1.0, 2.0),
    aten.normal.float_Tensor: ((1.0, torch.full((SIZE,), 2.0)), {}, 1.0, 2.0),
    aten.normal.float_float: ((1.0, 2.0, [SIZE]), {}, 1.0, 2.0),
    aten.normal_functional.default: ((torch.zeros(SIZE), 1.0, 2.0), {}, 1.0, 2.0),
    aten.poisson.default: ((torch.full((SIZE,), 4.0),), {}, 4.0, 2.0),
    aten.rand.default: (([SIZE],), {}, 0.5, 12**-0.5),
    aten.rand_like.default: ((torch.zeros(SIZE),), {}, 0.5, 12**-0.5),
    aten.randint.default: ((5, [SIZE]), {}, 2.0, 2**0.5),
    aten.randint.low: ((-2, 3, [SIZE]), {}, 0.0, 2**0.5),
    aten.randint_like.default: ((torch.zeros(SIZE), 5), {}, 2.0, 2**0.5),
    aten.randint_like.low_dtype: ((torch.zeros(SIZE), -2, 3), {}, 0.0, 2**0.5),
    aten.randn.default: (([SIZE],), {}, 0.0, 1.0),
    aten.randn_like.default: ((torch.zeros(SIZE),), {}, 0.0, 1.0),
    aten.randperm.default: ((SIZE,), {}, (SIZE - 1) / 2, SIZE * 12**-0.5),
    aten.rrelu_with_noise_functional.default: (
        (-torch.ones(SIZE), torch.zeros(SIZE), 0.1, 0.3, True),
        {},
        -0.2,
        0.2 * 12**-0.5,
    ),
    aten.uniform.default: ((torch.zeros(SIZE), -1.0, 3.0), {}, 1.0, 4 * 12**-0.5),
}
