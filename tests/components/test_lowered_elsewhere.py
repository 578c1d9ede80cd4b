"""Steps of ready components lowered for accelerators that this machine does not have."""

import jax
import pytest
from tiny import one_device

import medjax
from medjax import Options
from medjax.components import TokenClassification

LABELS = ("Disease", "Drug")


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_steps_of_a_tagger_lower_for(platform, precision, tiny_folder, corpus, tmp_path):
    labels = sorted({entity.label for document in corpus for entity in document.entities})
    tagger = TokenClassification.from_pretrained(tiny_folder, labels, gradient_checkpointing=True)
    options, mesh = Options(precision=precision), one_device()
    config = medjax.TrainerConfig(tmp_path, batch_size=2)
    loader = medjax.get_dataloader(
        corpus[:4], tagger.component, config, shuffle=False, options=options, mesh=mesh
    )
    batch = abstract(next(loader.batches(1)).device)
    state = medjax.create_state(
        tagger.component,
        medjax.make_optimizer(tagger.component, options),
        seed=0,
        learning_rate=1e-3,
        accumulates=False,
    )
    train = medjax.make_train_step(state, options=options, mesh=mesh, separate_update=False)
    evaluate = medjax.make_eval_step(
        tagger.component.forward, options=options, mesh=mesh, with_outputs=True
    )
    for step, first in ((train, state), (evaluate, state.variables)):
        exported = step.export(platform, abstract(first), batch)
        assert exported.platforms == ("cuda" if platform == "gpu" else platform,)
        text = exported.mlir_module()
        assert "LayoutConstraint" not in text  # they pay on a CPU only
        assert ("bf16" in text) == (precision == "bfloat16")
