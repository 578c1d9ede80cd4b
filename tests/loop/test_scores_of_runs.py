"""What a metrics computer receives; scores do not depend on batches or padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import collate_sentences, config, mlp, one_device, points, sentences, start_state, tagger

import medjax
from medjax import BatchData, Options, get_dataloader
from medjax.metrics import DOCUMENT

DATA = sentences(23, longest=20)


class Keeper:
    """Keeps what it is handed."""

    def __init__(self, keys=True):
        self.prepared, self.computed, self.keys = [], [], keys

    def prepare_batch(self, model_output, input_batch):
        self.prepared.append((model_output, input_batch))
        return {"lengths": input_batch["length"], "rows": np.arange(3)} if self.keys else {}

    def compute(self, all_data):
        self.computed.append(all_data)
        return {"count": float(len(all_data.get("lengths", [])))}


def run(folder, component, keeper, *, data=DATA, evaluated=None, options=None, **fields):
    return medjax.train(
        component,
        config(folder, **({"nb_training_epochs": 1} | fields)),
        data,
        data if evaluated is None else evaluated,
        metrics_computer=keeper,
        options=options,
        callback=[],
    )


# 16 and 24 are padded lengths as well as numbers of labels.
@pytest.mark.parametrize(("nb_labels", "window"), [(3, 0), (16, 50), (24, 0)])
def test_outputs_have_real_rows_and_the_lengths_of_collate(tmp_path, nb_labels, window):
    keeper = Keeper()
    result = run(
        tmp_path, tagger(nb_labels=nb_labels), keeper, options=Options(length_window=window)
    )
    params = result.state.params
    assert len(keeper.prepared) == 6
    for outputs, inputs in keeper.prepared:
        rows, length = inputs["input_ids"].shape
        assert type(outputs) is BatchData
        assert all(type(column) is np.ndarray for column in outputs.values())
        assert outputs["logits"].shape == (rows, length, nb_labels)
        assert outputs["pooled"].shape == (rows, nb_labels)
        expected = np.asarray(params["embedding"])[inputs["input_ids"]] @ np.asarray(params["w"])
        np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
    assert sum(len(inputs["length"]) for _, inputs in keeper.prepared) == 23


@pytest.mark.parametrize("size", ["twice", "half", "one less", "pairs"])
def test_outputs_of_another_length_are_not_cut(tmp_path, size, caplog):
    component, keeper = tagger(), Keeper()
    resized = {
        "twice": lambda ids: jnp.repeat(ids, 2, 1),
        "half": lambda ids: ids[:, ::2],
        "one less": lambda ids: ids[:, 1:],
        "pairs": lambda ids: jnp.repeat(ids[:, :, None], ids.shape[1], 2),
    }[size]

    def forward(variables, batch, *args, **kwargs):
        outputs, loss, collections = component.forward(variables, batch, *args, **kwargs)
        return BatchData(outputs, other=resized(batch["input_ids"]) + 1), loss, collections

    options = Options(length_ladder=(24,))
    data = [each for each in DATA if len(each["input_ids"]) < 18]
    run(tmp_path, component._replace(forward=forward), keeper, data=data, options=options)
    for outputs, inputs in keeper.prepared:
        rows, length = inputs["input_ids"].shape
        assert length < 24
        assert outputs["logits"].shape == (rows, length, 3)
        expected = {
            "twice": (rows, 48),
            "half": (rows, 12),
            "one less": (rows, 23),
            "pairs": (rows, length, length),
        }
        assert outputs["other"].shape == expected[size]
    told = [each.message for each in caplog.records if "axis 1 of the output" in each.message]
    assert len(told) == (size != "pairs")
    if size == "half":
        assert told[0].startswith(
            "axis 1 of the output 'other' has 12 entries where the input is padded to 24, and 6 "
            "where it is padded to 12; metrics get all of them"
        )


def test_a_ladder_that_starts_at_one(tmp_path):
    data = [{"input_ids": np.ones(n, int), "labels": np.zeros(n, int)} for n in (1, 1, 3, 2)]
    keeper = Keeper()
    options = Options(length_ladder=(1, 8), length_window=0)
    run(tmp_path, tagger(), keeper, data=data, options=options, batch_size=2)
    shapes = [outputs["logits"].shape for outputs, _ in keeper.prepared]
    assert shapes == [(2, 1, 3), (2, 3, 3)]


def test_an_output_without_rows_is_refused(tmp_path):
    component = mlp()

    def forward(*args, **kwargs):
        _, loss, collections = component.forward(*args, **kwargs)
        return medjax.BatchData(scale=jnp.zeros(())), loss, collections

    with pytest.raises(ValueError, match="output 'scale' as a scalar; expected one entry per row"):
        run(tmp_path, component._replace(forward=forward), Keeper(keys=False), data=points(4))


def test_scores_are_computed_once_a_phase_from_all_batches(tmp_path):
    keeper = Keeper()
    result = run(tmp_path, tagger(), keeper, nb_training_epochs=2)
    assert len(keeper.computed) == 2
    assert all(sorted(d["lengths"]) == sorted(map(_length, DATA)) for d in keeper.computed)
    assert [len(d["rows"]) for d in keeper.computed] == [18, 18]
    assert all(list(row["eval"]) == ["loss", "count"] for row in result.history)
    assert all(list(row["train"]) == ["loss"] for row in result.history)


def _length(item):
    return len(item["input_ids"])


def test_scores_in_training_too(tmp_path):
    keeper = Keeper()
    result = run(tmp_path, tagger(), keeper, do_metrics_in_training=True)
    assert len(keeper.computed) == 2
    assert all(sorted(d["lengths"]) == sorted(map(_length, DATA)) for d in keeper.computed)
    assert result.history[0]["train"]["count"] == result.history[0]["eval"]["count"] == 23


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_batch_that_was_left_out_is_not_scored(tmp_path, accumulation):
    """The batch counts as if it did not exist, and a metrics computer may fail on its outputs."""

    class Strict(Keeper):
        def prepare_batch(self, model_output, input_batch):
            assert np.isfinite(model_output["logits"]).all()
            return {"length": input_batch["name"]}

        def compute(self, all_data):
            return {"count": float(len(all_data["length"]))}

    data = [{**item} for item in points(12)]
    order = medjax.epoch_order(7, 1, len(data))
    data[order[5]]["x"] = data[order[5]]["x"] * np.nan  # within the second of three batches
    result = run(
        tmp_path,
        mlp(),
        Strict(),
        data=data,
        evaluated=points(5),
        do_metrics_in_training=True,
        gradient_accumulation_steps=accumulation,
        options=Options(on_non_finite="skip", length_window=0),
    )
    assert result.history[0]["train"]["count"] == 8.0
    assert int(result.state.skipped) == 1
    with pytest.raises(medjax.NonFiniteError):
        run(
            tmp_path,
            mlp(),
            Strict(),
            data=data,
            do_metrics_in_training=True,
            options=Options(length_window=0),
        )


def test_compute_runs_even_if_nothing_was_kept(tmp_path):
    keeper = Keeper(keys=False)
    result = run(tmp_path, tagger(), keeper)
    assert keeper.computed == [{}]
    assert result.history[0]["eval"]["count"] == 0.0


def test_without_a_computer_outputs_stay_where_they_are(tmp_path):
    result = run(tmp_path, mlp(), None, data=points(9))
    assert list(result.history[0]["eval"]) == ["loss"]


class Hits:
    """Scores that depend on every item: hits, and the sum of the logits."""

    def prepare_batch(self, model_output, input_batch):
        labels, logits = input_batch["labels"], model_output["logits"]
        counted = labels >= 0
        return {
            "hit": (logits.argmax(-1) == labels)[counted],
            "total": np.abs(logits).sum(-1)[counted],
        }

    def compute(self, all_data):
        return {
            "accuracy": float(np.mean(all_data["hit"])),
            "total": float(np.sum(all_data["total"])),
        }


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """Return a function that gives the metrics of the same model with other batches."""
    component = tagger()

    def metrics(batch_size, **options):
        folder = tmp_path_factory.mktemp("run")
        return medjax.train(
            component,
            config(folder, learning_rate=0.0, nb_training_epochs=1, batch_size=batch_size),
            DATA[:4],
            DATA,
            metrics_computer=Hits(),
            options=Options(**options),
            callback=[],
        ).history[0]["eval"]

    return metrics


@pytest.mark.parametrize(
    ("batch_size", "options"),
    [
        (1, {}),
        (7, {"length_window": 0}),
        (23, {}),
        (32, {"length_ladder": (64,)}),
        (5, {"length_ladder": tuple(range(1, 21)), "length_window": 2}),
    ],
)
def test_eval_metrics_do_not_depend_on_batches_or_padding(evaluate, batch_size, options):
    reference = evaluate(4)
    scores = evaluate(batch_size, **options)
    assert scores["accuracy"] == reference["accuracy"]
    assert scores["loss"] == pytest.approx(reference["loss"], rel=1e-6)
    assert scores["total"] == pytest.approx(reference["total"], rel=1e-5)


def test_a_loader_may_be_evaluated_alone():
    component = mlp()
    variables = start_state(component).variables
    step = medjax.make_eval_step(component.forward, options=Options(), mesh=one_device())
    losses = []
    for batch_size in (2, 9, 16):
        loader = get_dataloader(
            points(9, weighted=True),
            mlp(),
            config("unused", batch_size=batch_size),
            shuffle=False,
            mesh=one_device(),
        )
        losses.append(medjax.evaluation_epoch(variables, loader, step)["loss"])
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-6)
    assert step.nb_compilations == 3
    assert np.isfinite(losses[0])


def test_evaluation_columns_are_those_that_evaluate_scores(tmp_path):
    keeper = Keeper()
    trained = run(tmp_path, tagger(), keeper)
    columns = medjax.evaluation_columns(
        tagger(), trained.state.variables, config(tmp_path), DATA, metrics_computer=keeper
    )
    scored = keeper.computed[-2:]
    assert scored[0] == scored[1]  # of `train`, and of the evaluation just done
    assert columns == scored[1]


class Numbers:
    """Keeps the positions of rows, which the batches have in another order."""

    def prepare_batch(self, model_output, input_batch):
        return {DOCUMENT: input_batch["number"], "length": input_batch["length"]}

    def compute(self, all_data):
        return {}


def test_evaluation_columns_are_in_the_order_of_the_data(tmp_path):
    def collate(examples):
        batch = collate_sentences(examples)
        batch["number"] = [example["number"] for example in examples]
        return batch

    data = [{**item, "number": number} for number, item in enumerate(DATA)]
    component = tagger(collate=collate)
    variables = component.init(jax.random.key(0))
    options = Options(length_window=50, length_ladder=(8, 16, 32))
    read = []
    computer = Numbers()
    computer.compute = lambda columns: read.append(columns) or {}
    columns = medjax.evaluation_columns(
        component, variables, config(tmp_path), data, metrics_computer=computer, options=options
    )
    assert read[0][DOCUMENT] != sorted(read[0][DOCUMENT])  # short ones first
    assert columns[DOCUMENT] == list(range(23))
    assert columns["length"] == [len(item["input_ids"]) for item in data]
