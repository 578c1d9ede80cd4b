"""Models of Hugging Face name their classes: a run resumes no checkpoint of other names."""

import pytest
import torch
import transformers
from trained import make

import medjax
from medjax_torch import BatchData, Options

TEXTS = [torch.tensor([5, 6, 7]), torch.tensor([8, 9, 10])] * 4


class Classifier:
    """A classifier of texts as scripts write it, around a model of transformers."""

    device = torch.device("cpu")

    def __init__(self, names):
        config = transformers.BertConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            id2label=names,
        )
        torch.manual_seed(0)
        self.model = transformers.BertForSequenceClassification(config)

    def configure_optimizer(self, lr):
        return torch.optim.SGD(self.model.parameters(), lr=lr)

    def preprocess(self, item):
        return {"input_ids": item, "label": int(item[0] > 6)}

    def collate(self, examples):
        ids = torch.stack([example["input_ids"] for example in examples])
        labels = torch.tensor([example["label"] for example in examples])
        return BatchData(input_ids=ids, labels=labels)

    def forward(self, input_batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        result = self.model(**input_batch)
        return BatchData(logits=result.logits), result.loss if return_loss else None

    def save(self, path):
        torch.save(self.model.state_dict(), f"{path}/weights.pt")

    def load(self, path):
        self.model.load_state_dict(torch.load(f"{path}/weights.pt", weights_only=True))


def trainer(folder, names, epochs):
    return make(
        folder,
        Classifier(names),
        train=TEXTS,
        evaluated=TEXTS[:2],
        nb_training_epochs=epochs,
        options=Options(length_ladder=(8,)),
    )


def test_names_in_another_order_are_refused(tmp_path):
    trainer(tmp_path, {0: "no", 1: "yes"}, 1).train()
    told = r"classes of model \['no', 'yes'\], but now it is \['yes', 'no'\]"
    with pytest.raises(medjax.MismatchError, match=told):
        trainer(tmp_path, {0: "yes", 1: "no"}, 2).train(resume="auto")
    # The number of a class counts, not where it stands in the configuration.
    assert len(trainer(tmp_path, {1: "yes", 0: "no"}, 2).train(resume="auto")) == 2


@pytest.mark.slow
def test_classes_without_names_may_get_some(tmp_path):
    trainer(tmp_path, {0: "LABEL_0", 1: "LABEL_1"}, 1).train()
    assert len(trainer(tmp_path, {0: "no", 1: "yes"}, 2).train(resume="auto")) == 2
