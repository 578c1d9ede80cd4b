"""The training loop and its parts."""

from medjax.loop.cross_validation import CrossValidation as CrossValidation
from medjax.loop.cross_validation import cross_validate as cross_validate
from medjax.loop.epochs import Groups as Groups
from medjax.loop.epochs import Span as Span
from medjax.loop.epochs import evaluation_epoch as evaluation_epoch
from medjax.loop.epochs import training_epoch as training_epoch
from medjax.loop.epochs import update_learning_rate as update_learning_rate
from medjax.loop.evaluate import evaluate as evaluate
from medjax.loop.evaluate import evaluation_columns as evaluation_columns
from medjax.loop.request import RunRequest as RunRequest
from medjax.loop.save import save as save
from medjax.loop.train import TrainResult as TrainResult
from medjax.loop.train import train as train
