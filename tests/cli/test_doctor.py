"""``python -m medjax doctor``: versions, devices, the host, and what is known to be bad."""

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

from medjax.cli import diagnosis, main
from medjax.cli.versions import installed_packages
from medjax.loop.contract import UNSOUND
from medjax.runtime.host import host

JAX = importlib.metadata.version("jax")


@pytest.fixture
def packages(monkeypatch):
    """Return a function that sets what medjax requires."""

    def require(*requirements):
        found = installed_packages(requirements)
        monkeypatch.setattr(diagnosis, "installed_packages", lambda: found)

    return require


@pytest.fixture
def doctor(capsys):
    def call(*arguments):
        status = main(["doctor", *map(str, arguments), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return call


def test_a_sound_machine_is_described(doctor, packages, tmp_path, monkeypatch):
    packages("jax>=0.1", 'torch>=1; extra == "torch"', 'pytest>=1; extra == "test"')
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HF_TOKEN", "secret")
    status, found = doctor("--folder", tmp_path / "not" / "there")
    assert (status, found["problems"]) == (0, [])
    assert [package["name"] for package in found["packages"]] == ["jax", "torch"]
    assert found["packages"][0]["version"] == JAX
    assert found["devices"][0]["platform"] == "cpu"
    assert found["environment"]["OMP_NUM_THREADS"] == "3"
    assert "HF_TOKEN" not in found["environment"]
    assert found["disk"]["folder"] == str(tmp_path)
    assert found["disk"]["free"] > 0
    assert {product["name"].split()[1] for product in found["products"]} == {"float32", "bfloat16"}


def test_an_excluded_release_is_bad(doctor, packages, capsys):
    packages(f"jax!={JAX}")
    status, found = doctor()
    assert status == 1
    assert f'jax {JAX} is installed; medjax requires "jax!={JAX}"' in found["problems"]
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert f"{JAX} (BAD)" in text
    assert "BAD: jax" in text


def test_reasons_are_given_where_they_are_known(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.2")
    (jaxlib,) = installed_packages(["jaxlib!=0.10.2"])
    assert "it gives wrong results on CPUs" in jaxlib.problem


def test_packages_of_extras_may_be_missing_or_bad():
    missing, bad, required = installed_packages(
        ['no-such-package; extra == "plots"', 'numpy<1; extra == "a"', "no-such-core>=2"]
    )
    assert (missing.version, missing.problem) == (None, None)
    assert '"medjax[a]" requires "numpy<1"' in bad.problem
    assert required.problem == "no-such-core is not installed; medjax requires no-such-core>=2"


def test_requirements_of_other_platforms_do_not_count():
    assert not installed_packages(['numpy<1; python_version < "3"'])


def test_every_excluded_release_has_its_reason():
    project = Path(__file__).parents[2] / "pyproject.toml"
    required = tomllib.loads(project.read_text())["project"]["dependencies"]
    (jaxlib,) = (text for text in required if text.startswith("jaxlib"))
    assert set(re.findall(r"!=([\d.]+)", jaxlib)) == set(UNSOUND)


def test_a_device_that_multiplies_wrongly_is_named(doctor, packages, monkeypatch):
    packages()
    wrong = diagnosis.check_products(lambda a, b: (a @ b).at[3, 4].add(1))
    assert all("is off by" in product["problem"] for product in wrong)
    undefined = diagnosis.check_products(lambda a, b: (a @ b) * jnp.nan)
    assert all(product["problem"] for product in undefined)
    monkeypatch.setattr(diagnosis, "check_products", lambda: wrong)
    status, found = doctor()
    assert status == 1
    assert any("cpu:0 float32" in problem for problem in found["problems"])


def test_a_device_that_does_not_start_is_told(doctor, packages, monkeypatch):
    def fail():
        raise RuntimeError("no driver")

    packages()
    monkeypatch.setattr(diagnosis, "_devices", fail)
    status, found = doctor()
    assert (status, found["problems"]) == (1, ["RuntimeError: no driver"])


def test_a_folder_that_cannot_be_written_to_is_bad(doctor, packages):
    packages()
    status, found = doctor("--folder", "/proc/self/status")
    assert status == 1
    assert "cannot be written to" in found["problems"][0]


def test_limits_of_a_container_count(tmp_path):
    whole = host(tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    limited = host(tmp_path)
    assert limited == (whole.nb_cores, 0.5, 1_000_000, 600_000)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert host(tmp_path)[:3] == whole[:3]
