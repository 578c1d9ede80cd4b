"""A checkpoint whose arrays are others than those of the run is refused in torch's terms."""

import pytest
import torch
from trained import Classifier, make

import medjax


class Frozen(Classifier):
    """Its first layer is frozen."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.model[0].requires_grad_(False)


class Grouped(Classifier):
    """Has a parameter group for each layer."""

    def configure_optimizer(self, lr):
        layers = (self.model[0], self.model[3])
        groups = [{"params": list(layer.parameters())} for layer in layers]
        return self.optimizer(groups, lr=lr, **self.options)


def run(folder, component, epochs, **settings):
    make(folder, component, nb_training_epochs=epochs, **settings).train(resume="auto")


def sgd(**options):
    return lambda: Classifier(torch.optim.SGD, **options)


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (
            Classifier,
            Frozen,
            r"requires_grad of model\.0\.weight, model\.0\.bias was True and is False now",
        ),
        (
            Frozen,
            Classifier,
            r"requires_grad of model\.0\.weight, model\.0\.bias was False and is True now.*on_ep",
        ),
        (Classifier, Grouped, "number of parameter groups was 1 and is 2 now"),
        (sgd(), sgd(momentum=0.9), "momentum of the optimizer was 0 and is 0.9 now"),
        (Classifier, sgd(), "the optimizer was AdamW and is SGD now"),
    ],
    ids=["frozen", "unfrozen", "groups", "momentum", "class"],
)
def test_what_differs_is_named(tmp_path, first, then, said):
    run(tmp_path, first(), 1)
    with pytest.raises(medjax.MismatchError, match=f"{said}.*component.load") as refused:
        run(tmp_path, then(), 2)
    assert refused.value.leaves


def test_another_model_is_named_by_its_arrays(tmp_path):
    run(tmp_path, Classifier(), 1)
    component = Classifier()
    component.model[3] = torch.nn.Linear(16, 4)
    with pytest.raises(medjax.MismatchError, match="holds a different training state"):
        run(tmp_path, component, 2)


def test_a_callback_may_unfreeze_in_a_resumed_run(tmp_path):
    class Unfreezes(medjax.TrainerCallback):
        def on_epoch_begin(self, epoch):
            component.model[0].requires_grad_(True)

    run(tmp_path, Frozen(), 1)
    component = Frozen()
    before = component.model[0].weight.detach().clone()
    run(tmp_path, component, 2, callback=Unfreezes())
    assert not torch.equal(component.model[0].weight, before)
