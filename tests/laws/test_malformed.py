"""Malformed configurations, corpora and checkpoint metadata raise only documented exceptions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from hypothesis import strategies as st
from malformed import ANYTHING, FUZZED, attempts, damaged, json_files, names_a_field

import medjax
from medjax.checkpoint.progress import Progress, progress_record, read_progress
from medjax.models import read_config, read_labels
from medjax.text.readers import read_brat, read_conll, read_medkit_json

GOLDEN = Path(__file__).parents[1] / "golden"


def some_of(record: type) -> st.SearchStrategy[dict]:
    names = [field.name for field in dataclasses.fields(record)]
    return st.dictionaries(st.sampled_from(names), ANYTHING, min_size=1, max_size=2)


@FUZZED
@pytest.mark.parametrize("kind", [medjax.TrainerConfig, medjax.Options])
def test_configurations(kind, times):
    def attempt(fields):
        required = {"output_dir": "out"} if kind is medjax.TrainerConfig else {}
        try:
            kind(**{**required, **fields})
        except ValueError as error:
            names_a_field(error, kind.__name__, fields)
            raise

    attempts(times, some_of(kind), attempt, ValueError)


ENCODER = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "architectures": ["BertForTokenClassification"],
    "id2label": {"0": "O", "1": "B-a"},
    "hidden_dropout_prob": 0.1,
    "classifier_dropout": None,
    "is_decoder": False,
}


@FUZZED
def test_encoder_configurations(times, tmp_path):
    def attempt(content):
        (tmp_path / "config.json").write_bytes(content)
        read_config(tmp_path)
        read_labels(tmp_path)

    attempts(times, json_files(ENCODER), attempt, ValueError)


def check_relations(documents):
    for document in documents:
        assert list(document.entities) == sorted(document.entities, key=lambda e: (*e[1:3], e[0]))
        for relation in document.relations:
            assert 0 <= relation.head < len(document.entities)
            assert 0 <= relation.tail < len(document.entities)


def check_documents(documents):
    check_relations(documents)
    for document in documents:
        assert not document.text.startswith("\ufeff")
        ends = [0]
        for entity in document.entities:
            assert ends[-1] <= entity.start < entity.end <= len(document.text)
            ends.append(entity.end)


COLUMNS = st.lists(
    st.one_of(
        st.just(""),
        st.text(max_size=12),
        st.just("-DOCSTART- O"),
        st.just("# comment O"),
        st.builds(
            lambda token, space, tag: f"{token}{space}{tag}",
            st.text(max_size=4),
            st.sampled_from([" ", "\t", "  ", "\u00a0", "\r", ",", ";"]),
            st.sampled_from(["O", "B-a", "I-a", "I-b", "E-a", "S-", "B", "-", "X-a", ""]),
        ),
    ),
    max_size=8,
).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))


@FUZZED
def test_columns(times, tmp_path):
    file = tmp_path / "train.tsv"

    def attempt(content):
        file.write_bytes(content)
        check_documents(read_conll(file))

    wild = st.one_of(COLUMNS, COLUMNS, damaged(b"Fever B-Sign\nwith O\n\nrash I-Sign\n"))
    attempts(times, wild, attempt, ValueError)


TEXT = "Fever and a rash\nof the left\u2028and right hand\r\n\U0001f642 cut"
NUMBER = st.one_of(st.integers(-2, 50).map(str), st.sampled_from(["", "x", "\u0664", "9" * 5000]))
FRAGMENT = st.builds(lambda start, end: f"{start} {end}", NUMBER, NUMBER)
END = st.sampled_from(["Arg1:T1", "Arg2:T2", "Theme:E1", "T2", ":", "a::b", "Theme:T9"])
ANNOTATIONS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.builds(
            lambda start, ends: " ".join([start, *ends]),
            st.sampled_from(["R1\tof", "R2\tof Arg1:T1", "E1\tSign:T2", "E1\tSign", "*\tEquiv"]),
            st.lists(END, max_size=4),
        ),
        st.builds(
            lambda label, places, text: f"T1\t{label} {';'.join(places)}\t{text}",
            st.sampled_from(["Sign", "", "a b", "é"]),
            st.lists(FRAGMENT, max_size=3),
            st.sampled_from(["Fever", "rash", "", "Fever rash", "\t"]),
        ),
        st.builds(
            lambda start, length: f"T2\tSign {start} {start + length}\t{TEXT[start:][:length]}",
            st.integers(0, len(TEXT) + 2),
            st.integers(0, 9),
        ),
    ),
    max_size=5,
).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))


@FUZZED
def test_standoff(times, tmp_path):
    def attempt(content):
        (tmp_path / "note.txt").write_bytes(TEXT.encode("utf-8-sig"))
        (tmp_path / "note.ann").write_bytes(content)
        check_documents(read_brat(tmp_path).documents)
        check_relations(read_brat(tmp_path, overlapping=True).documents)

    valid = b"T1\tSign 0 5\tFever\nT2\tSign 12 16;36 40\trash hand\nR1\tof Arg1:T1 Arg2:T2\n"
    attempts(times, st.one_of(ANNOTATIONS, ANNOTATIONS, damaged(valid)), attempt, ValueError)


@FUZZED
@pytest.mark.parametrize("name", ["medkit_document.json", "medkit_documents.jsonl"])
def test_medkit_json(name, times, tmp_path):
    lines = name.endswith("l")
    text = (GOLDEN / name).read_text()
    valid = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)

    def attempt(content):
        (tmp_path / name).write_bytes(content)
        check_documents(read_medkit_json(tmp_path / name))
        check_relations(read_medkit_json(tmp_path / name, overlapping=True))

    attempts(times, json_files(valid, lines=lines), attempt, ValueError)


@FUZZED
def test_separate_annotations(times, tmp_path):
    text = (GOLDEN / "medkit_split_anns.jsonl").read_text()
    valid = [json.loads(line) for line in text.splitlines()]

    def attempt(content):
        (tmp_path / "anns.jsonl").write_bytes(content)
        check_documents(read_medkit_json(GOLDEN / "medkit_split.json", tmp_path / "anns.jsonl"))

    attempts(times, json_files(valid, lines=True), attempt, ValueError)


# Checkpoints whose metadata is forged, so that the manifest agrees with it.

STATE = {"w": jnp.arange(6.0).reshape(2, 3), "count": jnp.asarray(3, jnp.int32)}
START = Progress(seed=1, data={"items": 10}, schedule={"learning_rate": 0.1})
WITHIN = START._replace(
    batch=3,
    columns={"p": [1, (2, "x"), jnp.arange(3)]},
    history=[{"train": {"loss": 0.5}, "eval": {"loss": 0.25}}],
    callbacks={"0:Mine": {"best": 1.0}},
)


@pytest.fixture
def checkpoint(tmp_path):
    with medjax.CheckpointStore(tmp_path / "out", "run") as store:
        path = store.new_path(1)
        store.save(
            path,
            STATE,
            progress_record(WITHIN),
            metric=None,
            config={"learning_rate": 0.1},
            write_files=lambda folder: None,
            block=True,
        )
    return path


def resume(checkpoint):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with medjax.CheckpointStore(checkpoint.parent, "reader") as store:
        medjax.last_checkpoint(store.folder)
        medjax.best_checkpoint(store.folder)
        restored = store.restore(checkpoint, STATE, jax.tree.map(lambda _: here, STATE))
    return read_progress(restored[1])


@FUZZED
def test_records(times, checkpoint):
    file, manifest = checkpoint / "training_state.json", checkpoint / "manifest.json"
    entries = json.loads(manifest.read_text())
    assert resume(checkpoint).batch == 3

    def attempt(content):
        file.write_bytes(content)
        entries[file.name] = [len(content), hashlib.sha256(content).hexdigest()]
        manifest.write_text(json.dumps(entries))
        resume(checkpoint)

    attempts(times, json_files(json.loads(file.read_text())), attempt, medjax.CheckpointError)


@FUZZED
def test_manifests(times, checkpoint):
    manifest = checkpoint / "manifest.json"

    def attempt(content):
        manifest.write_bytes(content)
        resume(checkpoint)

    valid = json.loads(manifest.read_text())
    attempts(times, json_files(valid), attempt, medjax.CheckpointError)
