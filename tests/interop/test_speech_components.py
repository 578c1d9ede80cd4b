"""The components of examples/medkit_asr.py, without medkit except where a test says so."""

import importlib
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from trained import make

from medjax.metrics import TranscriptionMetrics
from medjax_torch import BatchData, Options

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALLER = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (16, 16),
    "conv_kernel": (64, 5),
    "conv_stride": (64, 5),
    "num_feat_extract_layers": 2,
}


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("transformers")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES / "data")
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("asr_components")


@pytest.fixture(scope="module")
def speech(example):
    return importlib.import_module("make_synthetic_speech")


@pytest.fixture
def ctc(example, speech, tmp_path):
    torch.manual_seed(0)
    return example.tiny_wav2vec2(speech.LETTERS, tmp_path / "vocabulary", BatchData, **SMALLER)


def test_synthetic_speech_is_the_same_for_a_seed_and_different_for_each_letter(speech):
    first, again = (speech.utterances(3, seed=1) for _ in range(2))
    assert [u.text for u in first] == [u.text for u in again]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(first, again, strict=True))
    spectra = set()
    for letter in speech.LETTERS:
        sound = speech._letter(letter, 1.0, np.random.default_rng(0))
        spectra.add(tuple(sorted(np.argsort(abs(np.fft.rfft(sound, 4096)))[-20:] // 40)))
    assert len(spectra) == len(speech.LETTERS)


def test_repetitions_and_blanks_of_a_path_spell_nothing(example):
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 2], [3, 3, 0, 3, 2, 2, 1]])
    letters = example.spelled(path, torch.tensor([7, 4]), blank=0)
    assert letters.shape == (2, example.MAX_LETTERS)
    assert [row[row != -100].tolist() for row in letters] == [[1, 1, 2], [3, 3]]
    long = torch.arange(600)[None] % 2 + 1
    assert example.spelled(long, torch.tensor([600]), blank=0).tolist() == [[1, 2] * 128]


def test_labels_spell_the_text(ctc, example, speech):
    whisper = example.tiny_whisper(speech.LETTERS, BatchData)
    utterances = speech.utterances(4, seed=3, max_words=2)
    for component in (ctc, whisper):
        batch = component.collate([component.preprocess(each) for each in utterances])
        ids = [row[row != -100].tolist() for row in batch["labels"]]
        assert component.decode(ids) == [each.text for each in utterances]


class Compilations:
    """A callback that notes how many steps are compiled at the end of each epoch."""

    def __init__(self):
        self.trainer, self.counts = None, []

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda **_: None

    def on_epoch_end(self, **_):
        self.counts.append(self.trainer.conversion_cost.nb_compilations)


@pytest.fixture
def compiled_quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.slow  # a minute
@pytest.mark.usefixtures("compiled_quickly")
def test_audio_is_padded_to_a_ladder_and_nothing_compiles_after_the_first_epoch(
    ctc, speech, tmp_path, caplog
):
    options = Options(length_ladder=(8_000, 16_000), padding={"input_values": 0.0})
    counted = Compilations()
    recordings = speech.utterances(16, seed=0, max_words=2)
    assert 8_000 < max(len(each.samples) for each in recordings) <= 16_000
    trainer = make(
        tmp_path / "run",
        ctc,
        options=options,
        train=recordings[:12],
        evaluated=recordings[12:],
        metrics_computer=TranscriptionMetrics(ctc.decode),
        callback=counted,
        batch_size=4,
        nb_training_epochs=2,
        checkpoint_metric="character_error_rate",
        minimize_checkpoint_metric=True,
    )
    counted.trainer = trainer
    with caplog.at_level(logging.INFO, logger="medjax"):
        history = trainer.train()
    assert len(set(counted.counts)) == 1, counted.counts
    compiled = [r.message for r in caplog.records if r.message.startswith("Compiled training")]
    assert 1 <= len(compiled) <= 2  # labels are padded from the second length on
    assert all("input_values float32[4,16000]" in message for message in compiled)
    assert {"word_error_rate", "character_error_rate", "loss"} == set(history[-1]["eval"])
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]


def test_whisper_is_scored_on_what_it_writes_with_the_current_weights(example, speech):
    torch.manual_seed(0)
    whisper = example.tiny_whisper(speech.LETTERS, BatchData, max_length=8)
    recordings = speech.utterances(2, seed=5, max_words=1)
    batch = whisper.collate([whisper.preprocess(each) for each in recordings])
    metrics = example.Written(whisper, TranscriptionMetrics(whisper.decode))
    with torch.no_grad():
        _, loss = whisper.forward(batch, return_loss=True, eval_mode=True)
        assert loss > 0
        whisper.model.proj_out.weight.zero_()  # tied: the first token of all is the most probable
    prepared = metrics.prepare_batch({}, batch)
    assert prepared["references"] == [each.text for each in recordings]
    assert {*"".join(prepared["hypotheses"])} == {speech.LETTERS[0]}
    assert metrics.compute(prepared)["word_error_rate"] == 1.0


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test_medkit_transcribes_with_a_saved_component(name, ctc, example, speech, tmp_path):
    pytest.importorskip("medkit.audio.transcription.hf_transcriber")
    script = importlib.import_module("medkit_asr")
    component = ctc if name == "wav2vec2" else example.tiny_whisper(speech.LETTERS, BatchData)
    component.save(tmp_path)
    recordings = speech.utterances(2, seed=4, max_words=1)
    heard = script.transcribe(tmp_path, recordings)
    assert len(heard) == 2
    if name == "wav2vec2":
        batch = component.collate([component.preprocess(each) for each in recordings])
        with torch.no_grad():
            outputs, _ = component.forward(batch, return_loss=False, eval_mode=True)
        ids = [row[row != -100].tolist() for row in outputs["predictions"]]
        assert heard == component.decode(ids)
