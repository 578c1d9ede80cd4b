"""Adapters whose heads have several modules are opened by PEFT."""

import jax
import numpy as np
import peft
import pytest
import torch
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict

from medjax.component import TrainableComponent
from medjax.components import Lora
from medjax.models import TOKEN_CLASSIFICATION
from medjax.models.huggingface import read_config, read_params


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, in peft
@pytest.mark.parametrize("classifier_bias", [False, True])
def test_peft_opens_an_adapter_of_modernbert(torch_classifier, tmp_path, classifier_bias):
    base = tmp_path / "base"
    torch_classifier("modernbert", classifier_bias=classifier_bias).save_pretrained(base)
    config = read_config(base)
    params = read_params(base, config, TOKEN_CLASSIFICATION)
    component = TrainableComponent(lambda key: {"params": params}, dict, *[None] * 5)
    lora = Lora(component, rank=2, alpha=4.0, targets=("attention/query_key_value",))
    variables = lora.init(jax.random.key(0))
    draw = np.random.default_rng(0)
    changed = {path: np.asarray(draw.normal(0, 0.1, np.shape(leaf)), np.float32)
               for path, leaf in flatten_dict(variables["params"]).items()}  # fmt: skip
    variables = {**variables, "params": unflatten_dict(changed)}
    lora.adapter(variables).write(tmp_path / "adapter", config, TOKEN_CLASSIFICATION)
    plain = transformers.AutoModelForTokenClassification.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    ids = np.arange(5, 17, dtype=np.int32)[None]
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(ids).long()).logits.numpy()
    flax_model = TOKEN_CLASSIFICATION.model(config, 3)
    merged = {"params": lora.merged(variables)["params"]}
    ours = flax_model.apply(merged, ids, np.ones_like(ids), deterministic=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
