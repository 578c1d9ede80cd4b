"""A run equals the same run written by hand in torch."""

import itertools

import jax
import numpy as np
import optax
import pytest
import torch
from tiny import CLASSES, FEATURES, HIDDEN, config, init_mlp, mlp, points

import medjax
from medjax import Options, epoch_order

TRAIN, EVAL = points(22, weighted=True), points(9, seed=5, weighted=True)
RATE, EPOCHS, SIZE, ACCUMULATION = 0.05, 3, 4, 2


def torch_model(component):
    key = jax.random.key(7)
    key = jax.random.fold_in(key, 0)  # the root key of a run with seed 7
    params = component.init(jax.random.split(key)[0])["params"]
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, CLASSES)
    )
    with torch.no_grad():
        for layer, number in ((model[0], 1), (model[2], 2)):
            layer.weight.copy_(torch.tensor(np.asarray(params[f"w{number}"]).T))
            layer.bias.copy_(torch.tensor(np.asarray(params[f"b{number}"])))
    return model


def torch_params(model):
    return {
        "w1": model[0].weight.detach().numpy().T,
        "b1": model[0].bias.detach().numpy(),
        "w2": model[2].weight.detach().numpy().T,
        "b2": model[2].bias.detach().numpy(),
    }


def torch_losses(model, items):
    x = torch.tensor(np.stack([item["x"] for item in items]))
    labels = torch.tensor([item["label"] for item in items])
    losses = torch.nn.functional.cross_entropy(model(x), labels, reduction="none")
    return losses, torch.tensor([item["weight"] for item in items])


def epochs_of_batches(items):
    for epoch in range(1, EPOCHS + 1):
        order = epoch_order(7, epoch, len(items)).tolist()
        yield [[items[i] for i in order[n : n + SIZE]] for n in range(0, len(items), SIZE)]


def assert_same_run(result, model, history):
    for name, value in torch_params(model).items():
        np.testing.assert_allclose(
            result.state.params[name], value, rtol=0, atol=1e-5, err_msg=name
        )
    losses = [(row["train"]["loss"], row["eval"]["loss"]) for row in result.history]
    np.testing.assert_allclose(losses, history, rtol=2e-5)


def optimizer_of(model, **options):
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=RATE, **options)


def test_adamw_with_clipping_decay_warm_up_and_accumulation(tmp_path):
    component = mlp(optimizer=optax.adam)
    result = medjax.train(
        component,
        config(
            tmp_path,
            learning_rate=RATE,
            nb_training_epochs=EPOCHS,
            gradient_accumulation_steps=ACCUMULATION,
        ),
        TRAIN,
        EVAL,
        callback=[],
        options=Options(max_grad_norm=0.3, weight_decay=0.1, warmup_steps=4, length_window=0),
    )
    model = torch_model(component)
    optimizer = optimizer_of(model)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 4))
    history = []
    for batches in epochs_of_batches(TRAIN):
        total = weight = 0.0
        for n in range(0, len(batches), ACCUMULATION):
            group = itertools.chain(*batches[n : n + ACCUMULATION])
            losses, weights = torch_losses(model, list(group))
            loss = (losses * weights).sum()
            optimizer.zero_grad()
            (loss / weights.sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
            optimizer.step()
            warm_up.step()
            total, weight = total + loss.item(), weight + weights.sum().item()
        losses, weights = torch_losses(model, EVAL)
        history.append((total / weight, ((losses * weights).sum() / weights.sum()).item()))
    assert_same_run(result, model, history)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_medkits_arithmetic(tmp_path, accumulation):
    component = mlp(optimizer=optax.adam)
    result = medjax.train(
        component,
        config(
            tmp_path,
            learning_rate=RATE,
            nb_training_epochs=EPOCHS,
            gradient_accumulation_steps=accumulation,
        ),
        TRAIN,
        EVAL,
        callback=[],
        options=Options(loss_arithmetic="medkit", length_window=0),
    )
    model = torch_model(component)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    def mean(items):
        losses, weights = torch_losses(model, items)
        return (losses * weights).sum() / weights.sum()

    history = []
    for batches in epochs_of_batches(TRAIN):
        total = 0.0
        for step, batch in enumerate(batches):  # as medkit's Trainer.training_epoch
            loss = mean(batch)
            if accumulation > 1:
                loss = loss / accumulation
            loss.backward()
            if (step + 1) % accumulation == 0 or step + 1 == len(batches):
                optimizer.step()
                optimizer.zero_grad()
            total += loss.item()
        with torch.no_grad():
            means = [mean(EVAL[n : n + SIZE]).item() for n in range(0, len(EVAL), SIZE)]
        history.append((total / len(batches), sum(means) / len(means)))
    assert_same_run(result, model, history)


def test_the_initial_state_is_that_of_init(tmp_path):
    result = medjax.train(
        mlp(), config(tmp_path, learning_rate=0.0, nb_training_epochs=1), TRAIN, callback=[]
    )
    for name, value in torch_params(torch_model(mlp())).items():
        np.testing.assert_array_equal(result.state.params[name], value)
    assert set(init_mlp(jax.random.key(0))["params"]) == set(result.state.params)
