"""Layouts over several devices give the same numbers as one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny import one_device

from medjax import sharding
from medjax.sharding import fsdp_spec

HERE = Path(__file__).parent


def printed(script, *arguments):
    """Return what a script printed on eight devices."""
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results():
    return printed("eight_devices.py")


@pytest.fixture(scope="module")
def created(tmp_path_factory):
    return printed("eight_devices_created.py", str(tmp_path_factory.mktemp("read")))


@pytest.mark.parametrize(
    ("case", "shards"), [("from_key", 8), ("from_files", 8), ("from_values", 8), ("both axes", 4)]
)
def test_a_sharded_state_is_created_shard_by_shard(created, case, shards):
    bytes_per_device, split, replicated = (
        created[case][name] for name in ("devices", "split", "replicated")
    )
    assert len(bytes_per_device) == 8
    assert split > 2 * replicated
    assert (
        split / shards + replicated
        <= bytes_per_device[0]
        <= bytes_per_device[-1]
        <= 1.05 * split / shards + replicated
    )


def test_init_is_computed_shard_by_shard(created):
    # Traced for the layout and for the shapes; run as it is only by create_state, to compare.
    assert created["traced"] == [True, False, True] * 2


def test_init_computes_with_what_files_contain_now(created):
    assert created["again"] == [2.0, 6.0]


@pytest.mark.parametrize("layout", ["data", "fsdp", "both", "apart"])
def test_eight_devices_give_the_history_of_one(results, layout):
    assert results["devices"] == 8
    np.testing.assert_allclose(results[layout]["losses"], results["one"]["losses"], atol=1e-5)
    np.testing.assert_allclose(results[layout]["w1"], results["one"]["w1"], atol=1e-4)
    assert results["one"]["compilations"] == 2
    assert results[layout]["compilations"] == (3 if layout == "apart" else 2)
    first, last = results["one"]["losses"][0], results["one"]["losses"][-1]
    assert last != pytest.approx(first, rel=1e-3)  # it did train


def test_the_eval_loss_does_not_depend_on_the_batch_size(results):
    losses = [metrics["loss"] for metrics in results["eval"].values()]
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-6)
    assert [metrics["rows"] for metrics in results["eval"].values()] == [21, 21, 21]


def test_fsdp_divides_the_memory_of_each_device(results):
    sizes = {layout: results[layout]["bytes"] for layout in ("one", "data", "fsdp", "both")}
    assert {layout: count for layout, (_, count) in sizes.items()} == {
        "one": 1,
        "data": 8,
        "fsdp": 8,
        "both": 8,
    }
    complete = sizes["one"][0]
    assert sizes["data"][0] == complete
    assert sizes["fsdp"][0] < complete / 7
    assert complete / 4 < sizes["both"][0] < complete / 3


@pytest.mark.parametrize(
    ("shape", "shards", "expected"),
    [
        ((64, 128), 8, PartitionSpec(None, "fsdp")),
        ((128, 64), 8, PartitionSpec("fsdp")),
        ((128, 128), 8, PartitionSpec("fsdp")),
        ((127, 64), 8, PartitionSpec(None, "fsdp")),
        ((127, 63), 8, PartitionSpec()),
        ((16, 16), 8, PartitionSpec()),  # too small
        ((), 8, PartitionSpec()),
        ((64, 128), 1, PartitionSpec()),
    ],
)
def test_how_an_array_is_split(shape, shards, expected):
    assert fsdp_spec(shape, shards) == expected


@pytest.mark.parametrize("fsdp", [0, 2, -1])
def test_a_number_of_shards_that_does_not_divide_is_refused(fsdp):
    with pytest.raises(ValueError, match=rf"fsdp is {fsdp}; expected a divisor of the 1 devices"):
        sharding.make_mesh(fsdp, devices=jax.devices()[:1])


def test_one_device_is_a_mesh_too():
    mesh = one_device()
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1}
    assert sharding.rows_per_batch(5, mesh) == 5
    tree = {"a": np.arange(3.0), "key": jax.random.key(1)}
    placed = sharding.put(tree, sharding.replicated(mesh))
    assert sharding.to_host(placed["a"]).tolist() == [0.0, 1.0, 2.0]
    assert sharding.bytes_per_device(placed["a"]) == {jax.devices()[0].id: 12}
