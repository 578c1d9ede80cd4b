"""Training equal components with medkit's Trainer and with ours."""

import warnings

import pytest
from trained import weights

import medjax_torch


def largest_difference(folder, component, data, evaluated, **fields):
    """Train two equal components and return the largest difference of losses and weights.

    Parameters
    ----------
    component : callable
        Makes a component.
    data, evaluated : dataset or callable
        The data, or what makes it, if reading changes it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        medkit = pytest.importorskip("medkit.training")
    results = []
    for module, settings in (
        (medkit, {}),
        (medjax_torch, {"options": medjax_torch.Options(order="medkit")}),
    ):
        one = component()
        config = module.TrainerConfig(
            output_dir=str(folder / module.__name__),
            **{
                "learning_rate": 1e-2,
                "nb_training_epochs": 2,
                "batch_size": 4,
                "seed": 3,
                **fields,
            },
        )
        datasets = [each() if callable(each) else each for each in (data, evaluated)]
        trainer = module.Trainer(one, config, *datasets, callback=_silent(module), **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # medkit's utcnow
            history = trainer.train()
        results.append((history, weights(one)))
    (history, expected), (ours, actual) = results
    losses = [
        abs(row[phase]["loss"] - other[phase]["loss"])
        for row, other in zip(ours, history, strict=True)
        for phase in ("train", "eval")
    ]
    return max(losses + [(actual[n] - w).abs().max().item() for n, w in expected.items()])


def _silent(module):
    # medkit's own methods lack arguments that its Trainer passes.
    names = [name for name in vars(module.TrainerCallback) if name.startswith("on_")]
    ignored = dict.fromkeys(names, lambda *args, **kwargs: None)
    return type("Silent", (module.TrainerCallback,), ignored)()
