"""Models of transformers, and medkit's own trainable component, are traced unmodified."""

import pytest
import torch
from graph_cases import Component, check, traced
from medkit_cases import documents, make_matcher
from torch import nn
from transformers import models

from medjax_torch.graph import TraceError

TEXT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
DISTILBERT = {
    "vocab_size": 40,
    "dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 40,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
T5 = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_heads": 2,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
GPT2 = {
    "vocab_size": 40,
    "n_positions": 40,
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "use_cache": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def from_batch(self, batch):
    outputs = self.model(**batch)
    return {"logits": outputs.logits}, outputs.loss


def text_batch(labels):
    ids = torch.randint(3, 40, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    labels = {"tokens": ids % 3, "lm": ids, "rows": torch.tensor([0, 2])}[labels]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize(
    ("model", "config", "options", "labels"),
    [
        (models.bert.BertForTokenClassification, models.bert.BertConfig, TEXT, "tokens"),
        (models.bert.BertForMaskedLM, models.bert.BertConfig, TEXT, "lm"),
        (
            models.roberta.RobertaForTokenClassification,
            models.roberta.RobertaConfig,
            TEXT,
            "tokens",
        ),
        (
            models.distilbert.DistilBertForSequenceClassification,
            models.distilbert.DistilBertConfig,
            {**DISTILBERT, "seq_classif_dropout": 0.0},
            "rows",
        ),
        (models.t5.T5ForConditionalGeneration, models.t5.T5Config, T5, "lm"),
        (models.gpt2.GPT2LMHeadModel, models.gpt2.GPT2Config, GPT2, "lm"),
    ],
    ids=["bert", "bert-mlm", "roberta", "distilbert", "t5", "gpt2"],
)
def test_language_models(model, config, options, labels):
    if labels in ("tokens", "rows"):
        options = {**options, "num_labels": 3}
    component = Component(from_batch, model=model(config(**options)))
    graph = check(component, text_batch(labels))
    assert graph.guards == ()
    assert graph.updated == ()
    assert graph.effects == ()


def wav2vec2(**options):
    config = models.wav2vec2.Wav2Vec2Config(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        ctc_loss_reduction="mean",
        **options,
    )
    model = models.wav2vec2.Wav2Vec2ForCTC(config)
    labels = torch.tensor([[3, 4, 5, 1], [6, 2, -100, -100]])
    return Component(from_batch, model=model), {
        "input_values": torch.randn(2, 200),
        "labels": labels,
    }


def ctc_by_rows(log_probs, targets, input_lengths, target_lengths, *args, **options):
    """Stands for the operator that the table of lowerings brings: CTC without reading lengths."""
    return log_probs.logsumexp(-1).mean() + target_lengths.float().mean() * log_probs.mean()


def test_speech_models(monkeypatch):
    component, batch = wav2vec2(layerdrop=0.0, apply_spec_augment=False)
    replaced = {nn.functional.ctc_loss: ctc_by_rows}
    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "ctc_loss", ctc_by_rows)
        graph = check(component, batch)
    assert [guard.what for guard in graph.guards] == [
        "aten._local_scalar_dense.default",
        "aten.masked_select.default",
    ]
    assert "modeling_wav2vec2.py" in graph.guards[0].line
    assert "(called at " in graph.guards[0].line
    component, batch = wav2vec2(layerdrop=0.0, apply_spec_augment=True, mask_time_prob=0.5)
    with pytest.raises(TraceError, match=r"draws from numpy.random at .*modeling_wav2vec2\.py"):
        traced(component, batch, replacements=replaced)
    component, batch = wav2vec2(layerdrop=0.1, apply_spec_augment=False)
    with pytest.raises(TraceError, match=r"branches on a random number.*layerdrop=0"):
        traced(component, batch, replacements=replaced)


@pytest.mark.parametrize("train", [True, False])
def test_medkits_entity_matcher(tmp_path, train):
    matcher = make_matcher(tmp_path)
    batch = matcher.collate([matcher.preprocess(document) for document in documents()])
    graph = check(matcher, batch, train)
    assert graph.columns == ("input_ids", "attention_mask", "labels")
    names = {f"_model.{name}" for name, _ in matcher._model.named_parameters()}
    assert set(graph.trained) | set(graph.frozen) == names
    assert graph.guards == graph.effects == ()
