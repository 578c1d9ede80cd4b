"""A torch optimizer and its JAX rule side by side, with the same gradients."""

from collections.abc import Callable

import jax
import numpy as np
import optax
import torch

from medjax.runtime import CompiledStep
from medjax_torch.optimizers import (
    make_transformation,
    plan_groups,
    read_hyperparams,
    set_hyperparams,
)


def make_model(seed: int = 0) -> torch.nn.Module:
    """Return a small MLP with a head that the loss does not use."""
    torch.manual_seed(seed)
    # Equal shapes, so that XLA compiles one kernel for both weights.
    hidden = torch.nn.Linear(4, 4, bias=False)
    model = torch.nn.Sequential(hidden, torch.nn.Tanh(), torch.nn.Linear(4, 4))
    model.spare = torch.nn.Linear(4, 4)
    return model


def fill_gradients(model: torch.nn.Module, step: int) -> None:
    """Backpropagate the mean squared error of a batch drawn for `step`."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 4, generator=generator)
    y = torch.randn(16, 4, generator=generator)
    model.zero_grad()
    loss = (model[2](model[1](model[0](x))) - y).square().mean()
    loss.backward()


def to_arrays(tensors: dict[str, torch.Tensor | None]) -> dict[str, jax.Array]:
    """Return dense copies of all that are not None, as JAX arrays."""
    return {
        name: jax.numpy.array(tensor.detach().to_dense().float().numpy(), tensor_dtype(tensor))
        for name, tensor in tensors.items()
        if tensor is not None
    }


def tensor_dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def parameter_names(model: torch.nn.Module) -> dict[torch.Tensor, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


_UPDATES: dict[str, CompiledStep] = {}


def _update_of(transformation: optax.GradientTransformation) -> Callable:
    def update(params, opt_state, gradients):
        updates, opt_state = transformation.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return update


class Pair:
    """The optimizer of a torch model, and JAX parameters that follow the same gradients.

    `optimizer` updates `model` and, with the hyperparameters it has before that, `params`.
    """

    def __init__(
        self,
        make_optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer],
        model: torch.nn.Module | None = None,
        fill: Callable[[torch.nn.Module, int], None] = fill_gradients,
    ) -> None:
        self.model = make_model() if model is None else model
        self.fill = fill
        self.optimizer = make_optimizer(self.model)
        self.plan = plan_groups(self.optimizer, parameter_names(self.model))
        hyperparams = read_hyperparams(self.optimizer, self.plan)
        transformation = make_transformation(self.plan, hyperparams)
        self.params = to_arrays(dict(self.model.named_parameters()))
        self.start = self.params
        self.opt_state = transformation.init(self.params)
        self.nb_steps = 0
        # Optimizers that differ only in numbers share one compiled update.
        structure = str((self.plan, jax.tree.map(jax.typeof, self.params), fill))
        self.update = _UPDATES.setdefault(
            structure, CompiledStep(_update_of(transformation), "training")
        )

    def fill_gradients(self) -> dict[str, jax.Array]:
        self.fill(self.model, self.nb_steps)
        self.nb_steps += 1
        return to_arrays({name: p.grad for name, p in self.model.named_parameters()})

    def step_jax(self, gradients: dict[str, jax.Array]) -> None:
        hyperparams = read_hyperparams(self.optimizer, self.plan)
        self.opt_state = set_hyperparams(self.opt_state, hyperparams)
        self.params, self.opt_state = self.update(self.params, self.opt_state, gradients)

    def step(self) -> None:
        """Update both with the gradient of the torch parameters."""
        self.step_jax(self.fill_gradients())
        self.optimizer.step()

    def run(self, nb_steps: int) -> None:
        for _ in range(nb_steps):
            self.step()

    def difference(self) -> float:
        """Return the largest difference of a parameter between the two."""
        torch_params = to_arrays(dict(self.model.named_parameters()))
        return max(np.abs(self.params[name] - torch_params[name]).max() for name in self.params)

    def movement(self) -> float:
        """Return the largest change of a parameter."""
        return max(np.abs(self.params[name] - self.start[name]).max() for name in self.params)
