"""A small random entity matcher of medkit, and documents for it."""

import pytest
import tokenizers
from tokenizers import pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, models

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def make_matcher(folder):
    """medkit's matcher on a random BERT with a tokenizer of ten words."""
    trainable = pytest.importorskip("medkit.text.ner.hf_entity_matcher_trainable")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *["the", "patient", "has", "severe", "asthma", "and", "mild", "fever", "."],
    ]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    labels = {"O": 0, "B-problem": 1, "I-problem": 2}
    config = models.bert.BertConfig(
        **SMALL, label2id=labels, id2label={i: n for n, i in labels.items()}
    )
    models.bert.BertForTokenClassification(config).save_pretrained(folder)
    return trainable.HFEntityMatcherTrainable(folder, ["problem"], "iob2", tokenizer_max_length=40)


def documents():
    text_module = pytest.importorskip("medkit.core.text")
    for text, start, end in (
        ("the patient has severe asthma .", 16, 29),
        ("mild fever", 0, 10),
    ):
        span = text_module.Span(start, end)
        entity = text_module.Entity(label="problem", text=text[start:end], spans=[span])
        yield text_module.TextDocument(text=text, anns=[entity])
