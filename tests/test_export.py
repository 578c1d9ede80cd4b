"""Exported components compute the same without medjax, at any shape and for all platforms."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tokenizers
import trained_folders
from safetensors.numpy import load_file

from medjax.components import TokenClassification, load_component
from medjax.export import export_component
from medjax.models import DebertaV2Config, ModernBertConfig, TokenClassifier
from medjax.text.alignment import tokens_to_words

pytest.importorskip("flatbuffers")

WITHOUT_MEDJAX = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("medjax", "flax", "optax", "orbax", "tokenizers"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""
WRITE = """
found = {}
for name, shape in about["shapes"].items():
    ids = np.random.RandomState(0).randint(5, 40, shape).astype(np.int32)
    mask = (np.arange(shape[1]) < 1 + shape[1] // 2).astype(np.int32) * np.ones_like(ids)
    found[name] = np.asarray(logits_of(weights, ids, mask))
np.savez("found.npz", **found)
"""
SHAPES = {"one": (1, 1), "odd": (3, 17), "full": (4, 64)}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return trained_folders.write_encoder(tmp_path_factory.mktemp("export") / "encoder")


def snippet():
    """Return the documented code that calls a program."""
    text = Path(__file__).parents[1].joinpath("docs", "predicting.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[-1]


def inputs(shape):
    ids = np.random.RandomState(0).randint(5, 40, shape).astype(np.int32)
    mask = (np.arange(shape[1]) < 1 + shape[1] // 2).astype(np.int32) * np.ones_like(ids)
    return ids, mask


def logits(component, variables, shape):
    ids, mask = inputs(shape)
    batch = {"input_ids": ids, "attention_mask": mask}
    how = {"return_loss": False, "eval_mode": True}
    forward = jax.jit(lambda v: component.forward(v, batch, jax.random.key(0), **how)[0]["logits"])
    return np.asarray(forward(variables))


@pytest.mark.parametrize(
    "write",
    [
        trained_folders.write_tagger,
        trained_folders.write_classifier,
        trained_folders.write_relations,
    ],
)
def test_a_program_for_all_lengths_computes_the_logits(write, encoder, tmp_path):
    component, variables = load_component(write(tmp_path / "model", encoder))
    export_component(component, variables, tmp_path / "exported")
    content = (tmp_path / "exported" / "model.stablehlo").read_bytes()
    program = jax.export.deserialize(bytearray(content))
    assert program.platforms == ("cpu", "cuda", "tpu")
    weights = load_file(tmp_path / "exported" / "weights.safetensors")
    for shape in SHAPES.values():
        expected = logits(component, variables, shape)
        found = program.call(weights, *inputs(shape))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    about = json.loads((tmp_path / "exported" / "export.json").read_text())
    assert len(about["classes"]) == expected.shape[-1]
    assert about["max_length"] == 64
    with pytest.raises(ValueError, match=r"length|refining shapes"):
        program.call(weights, *inputs((1, 65)))


def test_the_documented_snippet_runs_without_medjax(encoder, tmp_path):
    component, variables = load_component(trained_folders.write_tagger(tmp_path / "model", encoder))
    export_component(component, variables, tmp_path / "exported")
    file = tmp_path / "exported" / "export.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "shapes": SHAPES}))
    code = WITHOUT_MEDJAX + snippet() + WRITE
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[[")
    with np.load(tmp_path / "found.npz") as found:
        for name, shape in SHAPES.items():
            expected = logits(component, variables, shape)
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5)


def edit_tokenizer(folder, **fields):
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


PADS = {
    "strategy": {"Fixed": 24},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}
TRUNCATES = {"max_length": 4, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}


def test_the_exported_tokenizer_neither_truncates_nor_pads(encoder, tmp_path):
    folder = trained_folders.write_tagger(tmp_path / "model", encoder)
    edit_tokenizer(folder, padding=PADS, truncation=TRUNCATES)
    component, variables = load_component(folder)
    export_component(component, variables, tmp_path / "exported", lengths=[8], platforms=["cpu"])
    exported = tokenizers.Tokenizer.from_file(str(tmp_path / "exported" / "tokenizer.json"))
    text = "No fever since the stent and no cough."
    assert exported.encode(text).ids == component.tokenizer.encode([text])[0].ids
    assert len(exported.encode("fever").ids) == 3
    # transformers opens what training saves with the settings of the checkpoint.
    component.save(tmp_path / "saved", variables)
    saved = (tmp_path / "saved" / "tokenizer.json").read_bytes()
    assert saved == (folder / "tokenizer.json").read_bytes()


def test_the_program_of_the_tutorial_prints_the_tag_of_each_word(encoder, tmp_path):
    folder = trained_folders.write_tagger(tmp_path / "model", encoder)
    # "chest,pain" is one word for it, as "l'hypertension" is for CamemBERT's.
    whole = {"type": "WhitespaceSplit"}
    edit_tokenizer(folder, padding=PADS, truncation=TRUNCATES, pre_tokenizer=whole)
    component, variables = load_component(folder)
    export_component(component, variables, tmp_path / "exported")
    page = Path(__file__).parents[1].joinpath("docs", "tutorials", "predicting.md").read_text()
    (program,) = re.findall(r"%%writefile serve.py\n(.*?)```", page, flags=re.DOTALL)
    text = "No chest,pain since the stent and no headache, fever or cough."
    program, nb_texts = re.subn(r'^text = ".*"$', f"text = {text!r}", program, flags=re.MULTILINE)
    assert nb_texts == 1
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (encoding,) = component.tokenizer.encode([text])
    batch = {name: np.array([row], np.int32) for name, row in (
        ("input_ids", encoding.ids), ("attention_mask", [1] * len(encoding.ids)),
    )}  # fmt: skip
    how = {"return_loss": False, "eval_mode": True}
    best = component.forward(variables, batch, jax.random.key(0), **how)[0]["predictions"][0]
    expected = [
        f"{text[word.start : word.end]:12} {component.tags[best[word.token]]}"
        for word in tokens_to_words(text, encoding.offsets)
    ]
    assert done.stdout.splitlines() == expected
    assert [line.split()[0] for line in expected[1:4]] == ["chest", ",", "pain"]
    assert len({line.split()[1] for line in expected}) > 1


def test_the_tags_of_entities_that_overlap_are_found_by_layer(encoder, tmp_path):
    made = trained_folders.write_tagger(tmp_path / "model", encoder, overlapping=True)
    component, variables = load_component(made)
    export_component(component, variables, tmp_path / "exported")
    about = json.loads((tmp_path / "exported" / "export.json").read_text())
    assert about["layers"] == [["O", "B-Drug", "I-Drug"], ["O", "B-Sign", "I-Sign"]]
    done = subprocess.run(
        [sys.executable, "-c", snippet()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ids = np.array([[2, 7, 9, 3], [2, 8, 3, 0]], np.int32)
    batch = {"input_ids": ids, "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.int32)}
    how = {"return_loss": False, "eval_mode": True}
    best = component.forward(variables, batch, jax.random.key(0), **how)[0]["predictions"]
    expected = [
        [[tags[number] for number in row] for row in best[..., layer]]
        for layer, tags in enumerate(component.layers)
    ]
    assert done.stdout.splitlines() == [str(of_layer) for of_layer in expected]


def test_the_thresholds_of_a_classifier_are_exported(encoder, tmp_path):
    several = "multi_label_classification"
    folder = trained_folders.write_classifier(tmp_path / "model", encoder, problem_type=several)
    component, variables = load_component(folder)
    least = {"cardiology": 0.25, "surgery": 0.5, "other": 0.75}
    for made, expected in ((component, None), (component.with_thresholds(least), least)):
        export_component(made, variables, tmp_path / "exported", lengths=[4], platforms=["cpu"])
        about = json.loads((tmp_path / "exported" / "export.json").read_text())
        assert about["thresholds"] == expected


@pytest.fixture(scope="module")
def modernbert(encoder):
    """Return a function that makes a tagger with a local layer of blocks of 32 tokens."""
    tokenizer = TokenClassification.from_pretrained(encoder, ["Sign"]).tokenizer
    config = ModernBertConfig(
        vocab_size=120,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=600,
        local_attention=16,
    )
    model = TokenClassifier(config, 3)

    def tagger(max_length):
        tags = ("O", "B-Sign", "I-Sign")
        component = TokenClassification(model, tokenizer, tags, max_length=max_length)
        shapes = jax.eval_shape(component.init, jax.random.key(0))
        return component, trained_folders.random_like(shapes, seed=0)

    return tagger


@pytest.mark.parametrize(
    ("longest", "lengths"),
    [
        (64, (1, 17, 64)),  # all attention in one piece
        (600, (1, 17, 96, 97, 513, 600)),  # local attention in blocks of 32, global in those of 512
    ],
)
def test_a_program_for_all_lengths_of_a_modernbert(longest, lengths, modernbert, tmp_path):
    component, variables = modernbert(longest)
    export_component(component, variables, tmp_path)
    program = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    weights = load_file(tmp_path / "weights.safetensors")
    for length in lengths:
        ids, mask = inputs((2, length))
        found = np.asarray(program.call(weights, ids, mask))
        expected = logits(component, variables, (2, length))
        np.testing.assert_allclose(found[mask != 0], expected[mask != 0], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"length|refining shapes"):
        program.call(weights, *inputs((1, longest + 1)))


@pytest.mark.parametrize(
    "fields",
    [
        {"position_buckets": 8, "share_att_key": True, "conv_kernel_size": 3},
        {"max_relative_positions": 12, "position_biased_input": False},
    ],
    ids=["buckets", "without buckets"],
)
def test_a_program_for_all_lengths_of_a_deberta(fields, encoder, tmp_path):
    config = DebertaV2Config(
        vocab_size=120,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
        relative_attention=True,
        pos_att_type=("c2p", "p2c"),
        **fields,
    )
    tokenizer = TokenClassification.from_pretrained(encoder, ["Sign"]).tokenizer
    tags = ("O", "B-Sign", "I-Sign")
    component = TokenClassification(TokenClassifier(config, 3), tokenizer, tags, max_length=64)
    shapes = jax.eval_shape(component.init, jax.random.key(0))
    variables = trained_folders.random_like(shapes, seed=0)
    export_component(component, variables, tmp_path)
    program = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    weights = load_file(tmp_path / "weights.safetensors")
    for shape in SHAPES.values():
        found = program.call(weights, *inputs(shape))
        expected = logits(component, variables, shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_an_export_that_fails_leaves_no_folder(encoder, tmp_path, monkeypatch):
    made = trained_folders.write_tagger(tmp_path / "model", encoder)
    component, variables = load_component(made)

    def broken(self, *_, **__):
        raise NotImplementedError("no such operation")

    monkeypatch.setattr(TokenClassifier, "__call__", broken)
    with pytest.raises(NotImplementedError, match="no such operation"):
        export_component(component, variables, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_programs_for_some_lengths_compute_all_logits(modernbert, tmp_path):
    component, variables = modernbert(600)
    export_component(component, variables, tmp_path, lengths=[8, 32], platforms=["cpu"])
    about = json.loads((tmp_path / "export.json").read_text())
    weights = load_file(tmp_path / about["weights"])
    assert [each["length"] for each in about["programs"]] == [8, 32]
    for each in about["programs"]:
        content = (tmp_path / each["file"]).read_bytes()
        shape = (3, each["length"])
        found = jax.export.deserialize(bytearray(content)).call(weights, *inputs(shape))
        expected = logits(component, variables, shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"platforms": ["gpu"]}, r"platforms are \['gpu'\]; expected some of \['cpu', 'cuda'"),
        ({"platforms": []}, r"platforms are \[\]"),
        ({"lengths": [65]}, r"lengths are \[65\]; expected 1 to 64"),
    ],
)
def test_what_cannot_be_exported_is_refused(arguments, message, encoder, tmp_path):
    component = TokenClassification.from_pretrained(encoder, ["Sign"])
    with pytest.raises(ValueError, match=message):
        export_component(component, {"params": {}}, tmp_path / "exported", **arguments)
    assert not (tmp_path / "exported").exists()
