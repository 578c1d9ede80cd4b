"""Tiny random models of transformers: JAX computes what torch computes, including gradients."""

import pytest
import torch
import transformers

from medjax_torch.conversion import ConvertedComponent
from medjax_torch.lowerings import missing_operators
from medjax_torch.verification import verify

SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
TAGS = torch.tensor([[0, 1, 2, 2, 0, 1, -100, -100], [1, 0, 0, 2, 1, 1, 2, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0], [1] * 8])
IDS = torch.randint(5, 60, (2, 8), generator=torch.Generator().manual_seed(0))
TOKENS = {"input_ids": IDS, "attention_mask": MASK}
TAGGED = {**TOKENS, "labels": TAGS}
WRITTEN = {**TOKENS, "labels": IDS.masked_fill(MASK == 0, -100)}
IMAGES = {"pixel_values": torch.randn(2, 3, 8, 8), "labels": torch.tensor([0, 2])}
SPEECH = {"input_values": torch.randn(2, 400), "labels": torch.tensor([[5, 6], [7, 8]])}
SOUND = {"input_features": torch.randn(2, 8, 16), "labels": IDS[:, :5]}


def tagger(name, **changes):
    config = getattr(transformers, f"{name}Config")(**{**SMALL, "num_labels": 3, **changes})
    return getattr(transformers, f"{name}ForTokenClassification")(config)


def of(name, head, **changes):
    return getattr(transformers, name + head)(
        getattr(transformers, f"{name}Config")(**{**SMALL, **changes})
    )


def distilbert():
    sizes = {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    config = transformers.DistilBertConfig(**sizes, max_position_embeddings=40, num_labels=3)
    return transformers.DistilBertForTokenClassification(config)


def bart():
    sizes = {
        f"{side}_{part}": 2
        for side in ("encoder", "decoder")
        for part in ("layers", "attention_heads")
    }
    config = transformers.BartConfig(
        vocab_size=60,
        d_model=16,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=40,
        **sizes,
    )
    return transformers.BartForConditionalGeneration(config)


def wav2vec2():
    config = transformers.Wav2Vec2Config(
        **SMALL,
        conv_dim=(8, 8),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        apply_spec_augment=False,
        layerdrop=0.0,
        ctc_loss_reduction="mean",
    )
    return transformers.Wav2Vec2ForCTC(config)


def whisper():
    sizes = {
        f"{side}_{part}": 2
        for side in ("encoder", "decoder")
        for part in ("layers", "attention_heads")
    }
    config = transformers.WhisperConfig(
        vocab_size=60,
        d_model=16,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=8,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        **sizes,
    )
    return transformers.WhisperForConditionalGeneration(config)


MODELS = {
    "BERT": (lambda: tagger("Bert"), TAGGED),
    "RoBERTa": (lambda: tagger("Roberta", pad_token_id=1), TAGGED),
    "CamemBERT": (lambda: tagger("Camembert", pad_token_id=1), TAGGED),
    "DistilBERT": (distilbert, TAGGED),
    "ELECTRA": (lambda: tagger("Electra", embedding_size=8), TAGGED),
    "DeBERTa-v2": (
        lambda: tagger("DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"]),
        TAGGED,
    ),
    "ALBERT": (lambda: tagger("Albert", embedding_size=8), TAGGED),
    "ModernBERT": (
        lambda: tagger(
            "ModernBert", pad_token_id=0, global_attn_every_n_layers=2, local_attention=4
        ),
        TAGGED,
    ),
    "Longformer": (lambda: tagger("Longformer", attention_window=4, pad_token_id=1), TAGGED),
    "T5": (
        lambda: of(
            "T5",
            "ForConditionalGeneration",
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
        ),
        WRITTEN,
    ),
    "BART": (bart, WRITTEN),
    "GPT-2": (
        lambda: of(
            "GPT2",
            "LMHeadModel",
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=40,
            bos_token_id=0,
            eos_token_id=0,
        ),
        WRITTEN,
    ),
    "Llama": (lambda: of("Llama", "ForCausalLM", num_key_value_heads=1), WRITTEN),
    "ViT": (
        lambda: of("ViT", "ForImageClassification", image_size=8, patch_size=4, num_labels=3),
        IMAGES,
    ),
    "Wav2Vec2-CTC": (wav2vec2, SPEECH),
    "Whisper": (whisper, SOUND),
}


class Component:
    def __init__(self, model):
        self.model = model

    def forward(self, batch, eval_mode):
        self.model.train(not eval_mode)
        output = self.model(**batch)
        return {"logits": output.logits}, output.loss


SLOW = ("Whisper", "Longformer", "BART", "ELECTRA", "Llama")  # 7 s to a minute each


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MODELS]
)
def test_it_computes_what_torch_computes(name):
    torch.manual_seed(0)
    make, batch = MODELS[name]
    model = make()
    model.config.use_cache = False
    component = Component(model)
    converted = ConvertedComponent(component, component.forward, max_variants=1)
    for train in (True, False):
        key = converted.graph_of(batch, train=train)
        graph = converted.graph(key)
        assert not missing_operators(graph.module)
        call = converted.call_on(batch, train=train)
        verify(call, converted.inventory, batch, graph, converted.constants(key))
