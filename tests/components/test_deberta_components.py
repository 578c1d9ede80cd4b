"""DeBERTa with its own tokenizer: components train, folders open in transformers."""

import json
import shutil

import jax
import numpy as np
import pytest
import tokenizers
import transformers
from tiny import config, same_bits
from tokenizers import models, pre_tokenizers, trainers

import medjax
from medjax.components import Lora, TextClassification, TokenClassification
from medjax.models import DebertaV2Config, TokenClassifier, load_tokenizer, write_checkpoint
from medjax.text import LabelledText

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
LABELS = ("Problem", "Test", "Treatment")
SETTINGS = "tokenizer_config.json"
TEXT = "La fièvre (38,5 °C), puis\n\n  une toux…"


@pytest.fixture(scope="module")
def pieces(corpus):
    """The vocabulary of a small SentencePiece model, with scores."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )
    backend.train_from_iterator([document.text for document in corpus], trainer)
    return [tuple(piece) for piece in json.loads(backend.to_str())["model"]["vocab"]]


@pytest.fixture(scope="module")
def original(tmp_path_factory, pieces):
    """The folder of a random DeBERTa tagger, as small as one can be."""
    folder = tmp_path_factory.mktemp("deberta")
    transformers.DebertaV2Tokenizer(vocab=pieces).save_pretrained(folder)
    sizes = DebertaV2Config(
        vocab_size=len(pieces) + 1,  # with [MASK]
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        relative_attention=True,
        pos_att_type=("p2c", "c2p"),
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        conv_kernel_size=3,
    )
    labels = ("O", *(f"{part}-{label}" for label in LABELS for part in "BI"))
    model, ids = TokenClassifier(sizes, len(labels)), np.ones((1, 3), np.int32)
    params = model.init(jax.random.key(0), ids, ids, deterministic=True)["params"]
    write_checkpoint(folder, sizes, params, labels=labels)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "deberta")


def trained(component, items, folder):
    """Return the result of one epoch of two steps."""
    settings = config(folder, nb_training_epochs=1, batch_size=4, checkpoint_period=0)
    options = medjax.Options(length_ladder=(64,))
    return medjax.train(component, settings, items, items, options=options, callback=[])


@pytest.mark.slow  # 25 s; a classifier trains below, and the models are compared elsewhere
def test_a_tagger_trains_and_its_folder_opens_here_and_in_transformers(original, corpus, tmp_path):
    tagger = TokenClassification.from_pretrained(original)
    assert set(tagger.labels) == set(LABELS)
    result = trained(tagger.component, corpus[:8], tmp_path)
    again = TokenClassification.from_pretrained(result.last_checkpoint)
    variables = again.load(result.last_checkpoint)
    assert same_bits(variables["params"], jax.device_get(result.state.params))
    model, info = transformers.AutoModelForTokenClassification.from_pretrained(
        result.last_checkpoint, output_loading_info=True
    )
    assert not any(info.values())
    theirs = transformers.AutoTokenizer.from_pretrained(result.last_checkpoint)
    assert type(theirs) is transformers.DebertaV2Tokenizer
    expected = theirs([TEXT], return_tensors="pt")
    (ours,) = again.tokenizer.encode([TEXT])
    assert ours.ids == expected["input_ids"][0].tolist()
    ids = np.array([ours.ids], np.int32)
    logits = again.model.apply(variables, ids, np.ones_like(ids), deterministic=True)
    inputs = {name: expected[name] for name in ("input_ids", "attention_mask")}
    np.testing.assert_allclose(logits, model(**inputs).logits.detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_an_adapted_classifier_of_texts_trains_is_saved_and_predicts(original, corpus, tmp_path):
    classifier = TextClassification.from_pretrained(original, ["no", "yes"], max_length=32)
    texts = [LabelledText(d.text, ("yes" if d.entities else "no",)) for d in corpus[:8]]
    result = trained(Lora(classifier.component).component, texts, tmp_path)
    again = TextClassification.from_pretrained(result.last_checkpoint)
    variables = again.load(result.last_checkpoint)
    (one,) = again.predict(variables, [TEXT])
    assert sum(one.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("lowers", [True, False])
def test_the_setting_of_case_must_be_that_of_the_tokenizer(lowers, pieces, folder, caplog):
    transformers.DebertaV2Tokenizer(vocab=pieces, do_lower_case=lowers).save_pretrained(folder)
    TokenClassification.from_pretrained(folder)
    assert not caplog.records
    settings = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps(settings | {"do_lower_case": not lowers}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer.normalizer
    assert theirs.normalize_str("La Fièvre").islower() != lowers
    with pytest.raises(ValueError, match=f"do_lower_case is {not lowers}; expected the same"):
        TokenClassification.from_pretrained(folder)


def test_a_sentencepiece_model_alone_is_converted_by_transformers(pieces, folder, caplog):
    pytest.importorskip("sentencepiece")
    from transformers.convert_slow_tokenizer import import_protobuf

    stored = import_protobuf().ModelProto()
    for piece, score in pieces:
        kind = {"[UNK]": 2}.get(piece, 3) if piece in SPECIAL else 1
        stored.pieces.add(piece=piece, score=score, type=kind)
    stored.trainer_spec.unk_id = SPECIAL.index("[UNK]")
    stored.trainer_spec.model_type = 1  # Unigram
    expected = load_tokenizer(folder)
    for name in ("tokenizer.json", SETTINGS):
        (folder / name).unlink()
    (folder / "spm.model").write_bytes(stored.SerializeToString())
    tagger = TokenClassification.from_pretrained(folder)
    assert tagger.tokenizer.encode([TEXT]) == expected.encode([TEXT])
    assert tagger.tokenizer.pad_token_id == 0
    assert "from spm.model, without its map of characters" in caplog.text
    tagger.tokenizer.save(folder / "saved")
    assert {"spm.model", "tokenizer.json"} <= {file.name for file in (folder / "saved").iterdir()}
