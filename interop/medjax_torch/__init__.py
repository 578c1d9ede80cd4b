"""A drop-in for `medkit.training` that trains unmodified torch components with JAX.

Examples
--------
Replace the import of medkit's trainer; components, configuration and callbacks stay the same::

    from medjax_torch import Trainer, TrainerConfig  # instead of medkit.training

    config = TrainerConfig(output_dir="out", learning_rate=1e-3, nb_training_epochs=3)
    history = Trainer(component, config, train_data, eval_data).train()
"""

from medjax_torch.callbacks import DefaultPrinterCallback as DefaultPrinterCallback
from medjax_torch.callbacks import TrainerCallback as TrainerCallback
from medjax_torch.options import Options as Options
from medjax_torch.trainable_component import TrainableComponent as TrainableComponent
from medjax_torch.trainer import Trainer as Trainer
from medjax_torch.trainer_config import TrainerConfig as TrainerConfig
from medjax_torch.utils import BatchData as BatchData
from medjax_torch.utils import MetricsComputer as MetricsComputer
