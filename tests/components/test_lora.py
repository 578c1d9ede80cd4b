"""Lora: what is trained, what is saved, and adapters that PEFT opens and writes."""

import json
import re

import jax
import numpy as np
import peft
import pytest
import torch
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict
from tiny import config

import medjax
from medjax.components import Lora, TextClassification, TokenClassification
from medjax.models import TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, Adapter
from medjax.text import LabelledText

LABELS = ["no", "yes"]
TEXTS = [
    LabelledText(f"{'Chest pain' if n % 2 else 'No fever'} {n}.", (LABELS[n % 2],))
    for n in range(8)
]


OF_PEFT = pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, in peft


@pytest.fixture
def classifier(tiny_folder):
    return TextClassification.from_pretrained(tiny_folder, LABELS)


@pytest.fixture
def lora(classifier):
    return Lora(classifier.component, rank=2, alpha=4.0)


def trained(lora, folder, **options):
    return medjax.train(
        lora.component,
        config(folder, nb_training_epochs=3, batch_size=4, learning_rate=1e-2),
        TEXTS,
        TEXTS,
        options=medjax.Options(length_ladder=(16,), **options),
        callback=[],
    )


def outputs(component, variables, texts=TEXTS):
    batch = component.collate([component.preprocess(text) for text in texts])
    batch["row_mask"] = np.ones(len(texts), np.float32)
    how = {"return_loss": False, "eval_mode": True}
    return component.forward(variables, batch, jax.random.key(0), **how)[0]["logits"]


def changed(variables):
    """Return variables whose matrices change something, as after training."""
    draw = np.random.default_rng(0)
    params = {path: np.asarray(draw.normal(0, 0.1, np.shape(leaf)), np.float32)
              for path, leaf in flatten_dict(variables["params"]).items()}  # fmt: skip
    return {**variables, "params": unflatten_dict(params)}


def test_new_adapters_change_nothing(classifier, lora):
    variables = lora.init(jax.random.key(0))
    np.testing.assert_array_equal(
        outputs(lora.component, variables), outputs(classifier.component, lora.merged(variables))
    )


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_only_adapters_and_head_are_trained(lora, tmp_path, precision):
    result = trained(lora, tmp_path, precision=precision)
    assert result.history[-1]["train"]["loss"] < result.history[0]["train"]["loss"]
    state = result.state
    names = {path[0] for path in flatten_dict(state.params)}
    assert names == {"lora", "trained"}
    nb_trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    nb_all = sum(leaf.size for leaf in jax.tree.leaves(state.variables))
    assert nb_trained < 0.2 * nb_all
    moments = [leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(moments) == 2 * nb_trained
    start = lora.init(jax.random.key(0))["frozen"]
    for one, other in zip(*map(jax.tree.leaves, (state.variables["frozen"], start)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(np.abs(leaf).max() > 0 for path, leaf in flatten_dict(state.params["lora"]).items()
               if path[-1] == "b")  # fmt: skip


def test_what_is_saved_is_merged_and_opened_by_transformers(lora, classifier, tmp_path):
    result = trained(lora, tmp_path)
    variables = result.state.variables
    expected = outputs(lora.component, variables)
    plain = TextClassification.from_pretrained(result.last_checkpoint)
    np.testing.assert_allclose(
        outputs(plain.component, plain.load(result.last_checkpoint)), expected, atol=1e-5
    )
    np.testing.assert_allclose(
        outputs(lora.component, lora.load(result.last_checkpoint)), expected, atol=1e-5
    )
    (one,) = plain.predict(plain.load(result.last_checkpoint), [TEXTS[0].text])
    assert one.labels[0] in LABELS
    transformers.AutoModelForSequenceClassification.from_pretrained(result.last_checkpoint)


@pytest.mark.slow  # a minute; tests/faults interrupt other runs
def test_an_interrupted_run_resumes_bit_for_bit(lora, tmp_path):
    class Stops(medjax.TrainerCallback):
        def on_epoch_begin(self, epoch: int) -> None:
            if epoch == 3:
                raise KeyboardInterrupt

    expected = trained(lora, tmp_path / "whole")
    settings = config(tmp_path / "cut", nb_training_epochs=3, batch_size=4, learning_rate=1e-2)
    options = medjax.Options(length_ladder=(16,))

    def run(callback, resume=None):
        return medjax.train(
            lora.component, settings, TEXTS, TEXTS, options=options, callback=callback,
            resume=resume,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run([Stops()])
    resumed = run([], "auto")
    for one, other in zip(
        *map(jax.tree.leaves, (resumed.state.variables, expected.state.variables)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@OF_PEFT
def test_peft_opens_an_adapter(lora, classifier, tmp_path):
    result = trained(lora, tmp_path / "run")
    variables = result.state.variables
    # The base model, with the head as it was before training.
    classifier.save(tmp_path / "base", lora.merged(lora.init(jax.random.key(0))))
    folder = tmp_path / "adapter"
    lora.adapter(variables).write(folder, classifier.model.config, TEXT_CLASSIFICATION)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    batch = classifier.collate([classifier.preprocess(text) for text in TEXTS])
    with torch.no_grad():
        theirs = model(
            input_ids=torch.tensor(batch["input_ids"]).long(),
            attention_mask=torch.tensor(batch["attention_mask"]).long(),
        ).logits.numpy()
    np.testing.assert_allclose(theirs, outputs(lora.component, variables), atol=1e-5)
    again = Adapter.read(folder, classifier.model.config, TEXT_CLASSIFICATION)
    restored = lora.with_adapter(lora.init(jax.random.key(1)), again)
    np.testing.assert_allclose(
        outputs(lora.component, restored), outputs(lora.component, variables), atol=1e-6
    )


@OF_PEFT
def test_an_adapter_of_peft_is_opened(tiny_folder, tmp_path):
    tagger = TokenClassification.from_pretrained(tiny_folder)
    base = transformers.AutoModelForTokenClassification.from_pretrained(tiny_folder)
    settings = peft.LoraConfig(
        task_type="TOKEN_CLS", r=3, lora_alpha=6, target_modules=["query", "key", "output.dense"]
    )
    model = peft.get_peft_model(base, settings).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    targets = ("attention/query", "attention/key", "attention/output", "output")
    lora = Lora(tagger.component, rank=3, alpha=6.0, targets=targets)
    adapter = Adapter.read(tmp_path, tagger.model.config, TOKEN_CLASSIFICATION)
    variables = lora.with_adapter(lora.init(jax.random.key(0)), adapter)
    ids = np.arange(5, 17, dtype=np.int32)[None]
    ours = tagger.model.apply(lora.merged(variables), ids, np.ones_like(ids), deterministic=True)
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(ids).long()).logits.numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"targets": ("nothing",)}, "the target 'nothing' is no module with a matrix"),
        ({"trained": ("clasifier",)}, "trained has 'clasifier', where no parameter is"),
        ({"targets": (), "trained": ()}, "expected something to train"),
    ],
)
def test_paths_that_match_nothing_are_refused(classifier, fields, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        Lora(classifier.component, **fields).init(jax.random.key(0))


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"rank": 0}, "expected at least 1"), ({"targets": "query"}, "expected a tuple of paths")],
)
def test_fields_out_of_range_are_refused(classifier, fields, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        Lora(classifier.component, **fields)


def test_adapters_that_do_not_fit_are_refused(lora, classifier, tmp_path):
    variables = changed(lora.init(jax.random.key(0)))
    adapter = lora.adapter(variables)
    with pytest.raises(ValueError, match=r"the adapter has rank 5 and alpha 4\.0; expected 2"):
        lora.with_adapter(variables, adapter._replace(rank=5))
    fewer = dict(list(adapter.matrices.items())[1:])
    with pytest.raises(ValueError, match=r"has other parameters \(encoder/layer_0"):
        lora.with_adapter(variables, adapter._replace(matrices=fewer))
    where = classifier.model.config, TEXT_CLASSIFICATION
    adapter.write(tmp_path, *where)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_dora": True}))
    with pytest.raises(ValueError, match="use_dora is True; expected False"):
        Adapter.read(tmp_path, *where)
    content = json.loads(file.read_text()) | {"use_dora": False}
    for start in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"):
        file.write_text(json.dumps(content | {"init_lora_weights": start}))
        with pytest.raises(ValueError, match=f"init_lora_weights is '{start}', for which PEFT cha"):
            Adapter.read(tmp_path, *where)
    for plain in (True, False, None, "gaussian", "eva", "orthogonal"):
        file.write_text(json.dumps(content | {"init_lora_weights": plain}))
        assert Adapter.read(tmp_path, *where).rank == 2
    whole = Lora(classifier.component, trained=("encoder/layer_1", "classifier"))
    with pytest.raises(ValueError, match="was trained as a whole, which this format has for heads"):
        whole.adapter(changed(whole.init(jax.random.key(0)))).write(tmp_path, *where)


def test_a_checkpoint_keeps_the_adapter(lora, classifier, tmp_path):
    result = trained(lora, tmp_path / "run")
    checkpoint = result.last_checkpoint
    variables = result.state.variables
    loaded = lora.load(checkpoint)
    expected, found = lora.adapter(variables), lora.adapter(loaded)
    for kind in ("matrices", "trained"):
        one, other = getattr(expected, kind), getattr(found, kind)
        assert one.keys() == other.keys()
        for path, values in one.items():
            np.testing.assert_array_equal(other[path], values)
    start = flatten_dict(lora.init(jax.random.key(0))["frozen"])
    for path, values in flatten_dict(loaded["frozen"]).items():
        np.testing.assert_allclose(values, start[path], rtol=0, atol=1e-6)
    # The change is added once, not to weights that have it.
    again = lora.with_adapter(loaded, expected)
    np.testing.assert_allclose(
        outputs(lora.component, again), outputs(lora.component, variables), atol=1e-5
    )


def test_weights_that_have_the_change_give_no_adapter(lora, classifier, tmp_path):
    variables = changed(lora.init(jax.random.key(0)))
    lora.save(tmp_path, variables)
    other = Lora(classifier.component, rank=3, alpha=4.0)
    for loads, folder in ((other, "with other matrices"), (lora, "without matrices")):
        if folder == "without matrices":
            (tmp_path / "lora.safetensors").unlink()
        loaded = loads.load(tmp_path)
        np.testing.assert_allclose(
            outputs(loads.component, loaded), outputs(lora.component, variables), atol=1e-5
        )
        with pytest.raises(ValueError, match="all matrices b are zero; expected those of training"):
            loads.adapter(loaded)
    (tmp_path / "lora.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"cannot read .*lora\.safetensors .* copy the checkpoint"):
        lora.load(tmp_path)
    heads = Lora(classifier.component, targets=())
    assert heads.adapter(heads.init(jax.random.key(0))).matrices == {}


def test_the_head_of_an_adapter_is_for_its_classes(lora, classifier, tiny_folder, tmp_path, caplog):
    variables = changed(lora.init(jax.random.key(0)))
    where = classifier.model.config, TEXT_CLASSIFICATION
    lora.adapter(variables).write(tmp_path, *where)
    adapter = Adapter.read(tmp_path, *where)
    assert adapter.classes == ("no", "yes")

    def lora_for(labels):
        made = TextClassification.from_pretrained(tiny_folder, labels)
        return Lora(made.component, rank=2, alpha=4.0)

    swapped = lora_for(LABELS[::-1])
    found = swapped.with_adapter(swapped.init(jax.random.key(0)), adapter)
    ids, mask = (classifier.collate([classifier.preprocess(text) for text in TEXTS])[name]
                 for name in ("input_ids", "attention_mask"))  # fmt: skip
    of_classes = [
        classifier.model.apply(each.merged(values), ids, mask, deterministic=True)
        for each, values in ((lora, variables), (swapped, found))
    ]
    np.testing.assert_allclose(of_classes[1], of_classes[0][:, ::-1], atol=1e-6)
    assert not caplog.records
    others = lora_for(["no", "maybe"])
    with pytest.raises(
        ValueError, match=r"for the classes \['no', 'yes'\]; expected \['no', 'maybe"
    ):
        others.with_adapter(others.init(jax.random.key(0)), adapter)
    # PEFT's own have no names.
    (tmp_path / "classes.json").unlink()
    unnamed = Adapter.read(tmp_path, *where)
    assert unnamed.classes is None
    lora.with_adapter(variables, unnamed)
    assert "make sure that they are no, yes, in this order" in caplog.text
    (tmp_path / "classes.json").write_text('{"classes": "no"}')
    with pytest.raises(
        ValueError, match=r"classes\.json: classes is 'no'; expected a list of names"
    ):
        Adapter.read(tmp_path, *where)
