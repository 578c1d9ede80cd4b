"""Recurrent layers and attention."""

import torch
from torch import nn
from torch.nn import functional as F
from torch_cases import case, f, idiom, layer

# Recurrent --------------------------------------------------------------------------------


class First(nn.Module):
    """The output of a recurrent layer and its last states, flat."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return torch.utils._pytree.tree_leaves(self.inner(x))


layer("RNN", lambda: First(nn.RNN(3, 2, nonlinearity="relu")), 3, 2, 3)
layer("LSTM", lambda: First(nn.LSTM(3, 2, num_layers=2, batch_first=True)), 2, 2, 3)
layer("LSTM in both directions", lambda: First(nn.LSTM(3, 2, bidirectional=True)), 2, 1, 3)
layer("LSTM projected", lambda: First(nn.LSTM(3, 4, proj_size=2)), 2, 2, 3)
layer("GRU", lambda: First(nn.GRU(3, 2, bidirectional=True)), 2, 2, 3)


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(3, 2), nn.GRUCell(2, 2)

    def forward(self, x):
        state = hidden = None
        for step in x.unbind(0):
            state = self.lstm(step, state)
            hidden = self.gru(state[0], hidden)
        return hidden


layer("cells in a loop", Cells, 3, 2, 3)

# Attention --------------------------------------------------------------------------------


class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(block, 1, enable_nested_tensor=False)

    def forward(self, x, padding):
        return self.encoder(x, src_key_padding_mask=padding)


def padding():
    return torch.arange(5) >= torch.tensor([[5], [3]])


case("TransformerEncoder", Encoder, lambda: f(2, 5, 4), padding)
case(
    "TransformerEncoder, norm first",
    lambda: Encoder(norm_first=True, activation="gelu"),
    lambda: f(2, 5, 4),
    padding,
)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerDecoderLayer(4, 2, 6, dropout=0.0, batch_first=True)

    def forward(self, memory, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.inner(target, memory, tgt_mask=mask, tgt_is_causal=True)


case("TransformerDecoderLayer", Decoder, lambda: f(2, 4, 4), lambda: f(2, 3, 4))


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True, **options)

    def forward(self, x, padding):
        return self.inner(x, x, x, key_padding_mask=padding)


case("MultiheadAttention", lambda: Attention(add_bias_kv=True), lambda: f(2, 5, 4), padding)


def attention(**options):
    return lambda q, k, v, *mask: F.scaled_dot_product_attention(q, k, v, *mask, **options)


_qkv = (lambda: f(1, 2, 3, 4),) * 3
idiom("SDPA", attention(), *_qkv)
idiom("SDPA causal", attention(is_causal=True, scale=0.3), *_qkv)
idiom("SDPA float mask", attention(), *_qkv, lambda: f(3, 3))
idiom(
    "SDPA with a fully masked row",
    attention(),
    *_qkv,
    lambda: torch.tensor([[True, False, True], [False] * 3, [True] * 3]),
)
idiom(
    "SDPA grouped queries",
    attention(enable_gqa=True),
    lambda: f(1, 4, 3, 2),
    lambda: f(1, 2, 3, 2),
    lambda: f(1, 2, 3, 2),
)
