"""LayerDrop and SpecAugment, as speech models are configured by default."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trained import Classifier, make, same, weights

from medjax_torch import BatchData, Options
from medjax_torch.graph import TraceError

LAYERS = 4


class Layers(nn.Module):
    """Layers of which any may be left out, as Hugging Face writes it."""

    def __init__(self, layerdrop):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(LAYERS)
        )
        self.head = nn.Linear(6, 3)
        self.layerdrop = layerdrop

    def forward(self, x, drawn=None):
        """Return logits and what was drawn, or take `drawn` for it."""
        numbers = []
        for number, layer in enumerate(self.layers):
            skip_the_layer = False
            if self.training and self.layerdrop > 0.0:
                dropout_probability = torch.rand([]) if drawn is None else drawn[number]
                numbers.append(dropout_probability)
                skip_the_layer = dropout_probability < self.layerdrop
            if not skip_the_layer:
                x = layer(x)
        return self.head(x), numbers


class Dropping(Classifier):
    """Returns with its outputs what it drew, a number for each row."""

    def __init__(self, layers=Layers, layerdrop=0.4):
        super().__init__(weight_decay=0.1)
        self.model = layers(layerdrop)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits, drawn = self.model(batch["x"])
        outputs = BatchData(logits=logits, **({} if eval_mode else {"drawn": torch.stack(drawn)}))
        return outputs, F.cross_entropy(logits, batch["y"])


class Recorder:
    """Keeps what was drawn and the rows it was drawn for."""

    def __init__(self):
        self.batches = []

    def prepare_batch(self, model_output, input_batch):
        if "drawn" in model_output:
            columns = (model_output["drawn"], input_batch["x"], input_batch["y"])
            self.batches.append([torch.as_tensor(np.asarray(column)) for column in columns])
        return {"rows": [0]}

    def compute(self, all_data):
        return {"rows": float(len(all_data["rows"]))}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_layer_that_is_left_out_learns_nothing_and_loses_nothing_to_decay(tmp_path, accumulation):
    component, recorder = Dropping(), Recorder()
    twin = copy.deepcopy(component.model)
    optimizer = component.optimizer(twin.parameters(), lr=0.01, **component.options)
    make(
        tmp_path,
        component,
        batch_size=LAYERS,
        nb_training_epochs=2,
        learning_rate=0.01,
        gradient_accumulation_steps=accumulation,
        do_metrics_in_training=True,
        metrics_computer=recorder,
    ).train()
    drawn = torch.stack([numbers for numbers, _, _ in recorder.batches])
    assert 0.25 < (drawn < 0.4).float().mean() < 0.55
    assert len(set(drawn.flatten().tolist())) == drawn.numel()
    epoch = len(recorder.batches) // 2
    for number, (numbers, x, y) in enumerate(recorder.batches):
        loss = F.cross_entropy(twin(x, numbers)[0], y) / accumulation
        loss.backward()
        done = number % epoch + 1
        if done % accumulation == 0 or done == epoch:
            optimizer.step()
            optimizer.zero_grad()
    trained_weights = weights(component)
    for name, weight in twin.state_dict().items():
        assert (trained_weights[name] - weight).abs().max() < 2e-5, name


def test_layers_are_left_out_alike_in_runs_of_one_seed(tmp_path):
    components = [Dropping(), Dropping()]
    for number, component in enumerate(components):
        torch.manual_seed(number)
        make(tmp_path / str(number), component, batch_size=LAYERS, nb_training_epochs=2).train()
    assert same(*map(weights, components))


class Unguarded(Layers):
    """Draws without asking first whether any layer may be left out."""

    def forward(self, x, drawn=None):
        """Return logits and what was drawn."""
        numbers = [torch.rand([]) for _ in self.layers]
        for number, layer in zip(numbers, self.layers, strict=True):
            if number < self.layerdrop:
                continue
            x = layer(x)
        return self.head(x), numbers


@pytest.mark.parametrize(("layerdrop", "nb_changed"), [(0.0, LAYERS), (1.0, 0)])
def test_without_a_choice_no_layer_is_droppable(tmp_path, layerdrop, nb_changed):
    component = Dropping(Unguarded, layerdrop)
    before = weights(component)
    trainer = make(tmp_path, component, batch_size=LAYERS, nb_training_epochs=1)
    trainer.train()
    assert not any(graph.droppable for graph in trainer.prepare().converted.variants.graphs)
    after = weights(component)
    changed = [
        n
        for n in range(LAYERS)
        if not torch.equal(before[f"layers.{n}.0.weight"], after[f"layers.{n}.0.weight"])
    ]
    assert len(changed) == nb_changed


class DecidesMore(Layers):
    """A random number that decides on a factor next to the layer."""

    def forward(self, x, drawn=None):
        """Return logits and what was drawn."""
        skips = torch.rand([]) < self.layerdrop
        x = x if skips else self.layers[0](x) * 2
        return self.head(x), [torch.zeros(())] * LAYERS


class DecidesElse(Layers):
    """A random number that decides about no layer."""

    def forward(self, x, drawn=None):
        """Return logits and what was drawn."""
        if torch.rand([]) < self.layerdrop:
            x = x + 1
        return self.head(x), [torch.zeros(())] * LAYERS


class DropsNormalisation(Layers):
    """Layers with statistics, which change only where the layer runs."""

    def __init__(self, layerdrop):
        super().__init__(layerdrop)
        self.layers = nn.ModuleList(nn.BatchNorm1d(6) for _ in range(LAYERS))


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("layers", [DecidesMore, DecidesElse, DropsNormalisation])
def test_what_else_a_random_number_decides_is_refused_by_name(tmp_path, layers, verify):
    options = Options(verify=verify)
    with pytest.raises(TraceError, match=r"branches on (a )?random number") as error:
        make(tmp_path, Dropping(layers), batch_size=LAYERS, options=options).train()
    assert "layerdrop=0" in str(error.value)


class Masked(Classifier):
    """SpecAugment's own function on rows of a length that a column tells."""

    def __init__(self, function):
        super().__init__()
        self.function, self.model = function, nn.Linear(6, 3)
        self.spec_embed = nn.Parameter(torch.rand(6))
        self.model.spec_embed = self.spec_embed

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        frames = batch["x"][:, None] * torch.arange(1, 9)[:, None] / 8
        lengths = 4 + batch["y"]
        mask = torch.zeros(frames.shape[:2], dtype=torch.bool)
        if not eval_mode:
            inputs = (torch.arange(8) < lengths[:, None]).long()
            spans = self.function()((len(frames), 8), 0.4, 2, inputs, 1)
            mask = torch.tensor(spans, device=frames.device, dtype=torch.bool)
            frames[mask] = self.spec_embed.to(frames.dtype)
        logits = self.model(frames).mean(1)
        return BatchData(logits=logits, mask=mask), F.cross_entropy(logits, batch["y"])


@pytest.fixture(scope="module")
def speech():
    return pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")


class Masks:
    """Keeps the masks of training, with how long the rows are."""

    def __init__(self):
        self.seen = []

    def prepare_batch(self, model_output, input_batch):
        if np.asarray(model_output["mask"]).any():
            self.seen.append((np.asarray(model_output["mask"]), np.asarray(input_batch["y"]) + 4))
        return {"rows": [0]}

    def compute(self, all_data):
        return {}


def test_masks_are_those_of_the_models_own_function(tmp_path, speech):
    components, masks = [], []
    for number in range(2):
        np.random.seed(number)
        component, computer = Masked(lambda: speech._compute_mask_indices), Masks()
        make(
            tmp_path / str(number),
            component,
            batch_size=11,
            nb_training_epochs=3,
            do_metrics_in_training=True,
            metrics_computer=computer,
        ).train()
        components.append(component)
        masks.append(computer.seen)
    assert same(*map(weights, components))
    first, second = masks
    assert len(first) == len(second) == 12
    for (mask, lengths), (other, _) in zip(first, second, strict=True):
        assert (mask == other).all()
        assert not (mask & (np.arange(8) >= lengths[:, None])).any()
        assert (mask.sum(1) >= 2).all()  # a span at least
    assert len({mask.tobytes() for mask, _ in first}) == 12


def test_an_attention_mask_of_parameters_is_refused(tmp_path, speech):
    class Learned(Masked):
        def forward(self, batch, return_loss, eval_mode):
            inputs = (torch.arange(8) < 8 * self.model.weight.sum()).long().expand(11, 8)
            spans = self.function()((11, 8), 0.4, 2, inputs, 1)
            logits = self.model(batch["x"]) * spans.sum()
            return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])

    with pytest.raises(TraceError, match="attention mask that depends on parameters"):
        make(tmp_path, Learned(lambda: speech._compute_mask_indices), batch_size=11).train()
