"""medkit.training's API over medjax: unmodified torch components, trained by JAX."""

from medjax_torch.callbacks import DefaultPrinterCallback as DefaultPrinterCallback
from medjax_torch.callbacks import TrainerCallback as TrainerCallback
from medjax_torch.options import Options as Options
from medjax_torch.trainable_component import TrainableComponent as TrainableComponent
from medjax_torch.trainer import Trainer as Trainer
from medjax_torch.trainer_config import TrainerConfig as TrainerConfig
from medjax_torch.utils import BatchData as BatchData
from medjax_torch.utils import MetricsComputer as MetricsComputer
