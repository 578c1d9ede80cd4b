"""A space before a text: tokenizers that add another than transformers would are refused."""

import json

import pytest
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers, processors, trainers

from medjax.models import load_tokenizer, prove_folder, read_config

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = ["fever and cough, no fever", "chest pain fever", "fever"] * 20
CLASSES = {
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
}


def tokenizer_of(model_type, *, adds_space):
    """Return a tokenizer as transformers makes it for a type of model."""
    if model_type == "roberta":
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds_space)
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        backend = tokenizers.Tokenizer(models.Unigram())
        scheme = "always" if adds_space else "never"
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=60, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
    backend.train_from_iterator(TEXTS, trainer)
    if model_type == "roberta":
        backend.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=adds_space
        )
    else:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return backend


@pytest.mark.parametrize("setting", [True, False, None])
@pytest.mark.parametrize("adds_space", [True, False])
@pytest.mark.parametrize("model_type", CLASSES)
def test_another_space_than_that_of_transformers_is_refused(
    torch_classifier, tmp_path, model_type, adds_space, setting
):
    backend = tokenizer_of(model_type, adds_space=adds_space)
    model = torch_classifier(model_type, vocab_size=backend.get_vocab_size(), pad_token_id=1)
    model.save_pretrained(tmp_path)
    backend.save(str(tmp_path / "tokenizer.json"))
    settings = {
        "tokenizer_class": CLASSES[model_type],
        **{f"{name}_token": f"<{name}>" for name in ("pad", "unk", "mask")},
        **{"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"},
        **({} if setting is None else {"add_prefix_space": setting}),
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)("fever cough")["input_ids"]
    tokenizer = load_tokenizer(tmp_path)
    is_same = tokenizer.encode(["fever cough"])[0].ids == theirs
    assert is_same == (adds_space == (model_type != "roberta" if setting is None else setting))
    if is_same:
        prove_folder(tmp_path, read_config(tmp_path), tokenizer)
        return
    kind = "a" if adds_space else "no"
    with pytest.raises(
        ValueError,
        match=rf"adds {kind} space before a text, but .* add_prefix_space is {not adds_space};",
    ):
        prove_folder(tmp_path, read_config(tmp_path), tokenizer)
