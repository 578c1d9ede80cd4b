"""The first batch on the device of a run against float32 on the CPU."""

import jax.numpy as jnp
import pytest
from tiny import config, sentences, tagger

import medjax
from medjax import Options

DATA = sentences(8)


def run(folder, component, **options):
    return medjax.train(
        component,
        config(folder, nb_training_epochs=1),
        DATA,
        options=Options(**options),
        callback=[],
    )


def wrong_in_bfloat16(component, name):
    """Return a component one of whose outputs is wrong where it computes in bfloat16."""

    def forward(variables, batch, key, /, **how):
        outputs, loss, changed = component.forward(variables, batch, key, **how)
        if variables["params"]["w"].dtype == jnp.bfloat16:
            outputs[name] = outputs[name] * 1.5
        return outputs, loss, changed

    return component._replace(forward=forward)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_device_that_agrees_passes(tmp_path, precision, caplog):
    with caplog.at_level("INFO", "medjax"):
        run(tmp_path, tagger(), verify=True, precision=precision)
    assert "The first batch on the cpu is that of the CPU" in caplog.text


@pytest.mark.parametrize("name", ["logits", "pooled"])
def test_the_output_that_differs_is_named(tmp_path, name):
    component = wrong_in_bfloat16(tagger(), name)
    with pytest.raises(medjax.SelfCheckError, match=rf"'{name}' of the first batch differs"):
        run(tmp_path, component, verify=True, precision="bfloat16")
    assert not list(tmp_path.glob("checkpoint_*"))


@pytest.mark.parametrize("verify", [None, False])
def test_on_a_cpu_it_is_opt_in(tmp_path, verify):
    component = wrong_in_bfloat16(tagger(), "logits")
    assert run(tmp_path, component, verify=verify, precision="bfloat16").history


def test_changes_no_number(tmp_path):
    checked = run(tmp_path / "checked", tagger(), verify=True)
    assert checked.history == run(tmp_path / "plain", tagger()).history
