"""Steps of ready components lowered for accelerators that this machine does not have."""

import jax
import pytest
from tiny import one_device

import medjax
from medjax import Options
from medjax.components import (
    ClassificationLoss,
    Lora,
    TextClassification,
    TokenClassification,
)
from medjax.models import DebertaV2Config, TokenClassifier
from medjax.text import LabelledText


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def tagger(folder, documents):
    labels = sorted({entity.label for document in documents for entity in document.entities})
    made = TokenClassification.from_pretrained(folder, labels, gradient_checkpointing=True)
    return made.component, documents[:4]


def classifier(folder, documents):
    loss = ClassificationLoss(pos_weight={"yes": 2.0}, focal_gamma=2.0)
    problem = "multi_label_classification"
    made = TextClassification.from_pretrained(
        folder, ["no", "yes"], problem_type=problem, max_length=8, loss=loss
    )
    return made.component, [LabelledText(each.text, ("yes",)) for each in documents[:4]]


def adapted(folder, documents):
    component, items = classifier(folder, documents)
    return Lora(component).component, items


def deberta(folder, documents):
    tokenizer = TokenClassification.from_pretrained(folder).tokenizer
    config = DebertaV2Config(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        relative_attention=True,
        pos_att_type=("c2p", "p2c"),
        conv_kernel_size=3,
        conv_groups=2,
    )
    tags = (
        "O",
        *(f"{part}-{label}" for label in ("Problem", "Test", "Treatment") for part in "BI"),
    )
    return TokenClassification(TokenClassifier(config, 7), tokenizer, tags).component, documents[:4]


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("made", [tagger, classifier, adapted, deberta])
def test_the_steps_of_a_component_lower_for(
    made, platform, precision, tiny_folder, corpus, tmp_path
):
    component, items = made(tiny_folder, corpus)
    options, mesh = Options(precision=precision), one_device()
    config = medjax.TrainerConfig(tmp_path, batch_size=2)
    loader = medjax.get_dataloader(
        items, component, config, shuffle=False, options=options, mesh=mesh
    )
    batch = abstract(next(loader.batches(1)).device)
    state = medjax.create_state(
        component,
        medjax.make_optimizer(component, options),
        seed=0,
        learning_rate=1e-3,
        accumulates=False,
    )
    train = medjax.make_train_step(state, options=options, mesh=mesh, separate_update=False)
    evaluate = medjax.make_eval_step(
        component.forward, options=options, mesh=mesh, with_outputs=True
    )
    for step, first in ((train, state), (evaluate, state.variables)):
        exported = step.export(platform, abstract(first), batch)
        assert exported.platforms == ("cuda" if platform == "gpu" else platform,)
        text = exported.mlir_module()
        assert "LayoutConstraint" not in text  # they pay on a CPU only
        assert ("bf16" in text) == (precision == "bfloat16")
