"""Load what `save` wrote, as the component that it is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from medjax.component import Variables
from medjax.components.relation_classification import (
    NO_RELATION,
    RELATION_SETTINGS,
    RelationClassification,
)
from medjax.components.text_classification import TextClassification
from medjax.components.token_classification import TokenClassification
from medjax.models import TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, read_labels, resolve_model
from medjax.models.config_json import CONFIG_FILE
from medjax.models.files import read_json

__all__ = ["LoadedComponent", "ReadyComponent", "component_kind", "load_component"]

ReadyComponent = TokenClassification | TextClassification | RelationClassification


class LoadedComponent(NamedTuple):
    """A trained component.

    Attributes
    ----------
    component : TokenClassification, TextClassification or RelationClassification
        The component.
    variables : dict
        Its weights.
    """

    component: ReadyComponent
    variables: Variables


def load_component(name_or_folder: str | Path, *, max_length: int | None = None) -> LoadedComponent:
    """Return the trained component in a folder, with its weights.

    Taggers and classifiers are told apart by ``architectures`` in config.json, or else by their
    weights and classes, see `medjax.models.read_labels`; classifiers of relations have medjax's
    field ``relation_candidates``.

    Parameters
    ----------
    name_or_folder : str or Path
        A checkpoint of medjax or a Hugging Face folder; see `medjax.models.resolve_model`.
    max_length : int, optional
        Tokens of a window; by default as the component was trained, if medjax wrote the folder.

    Raises
    ------
    ValueError
        If it is neither a tagger nor a classifier of texts or relations, or cannot be read.
    """
    folder = resolve_model(name_or_folder)
    kind = component_kind(folder)
    component = kind.from_pretrained(folder, max_length=max_length)
    return LoadedComponent(component, component.load(folder))


def component_kind(folder: Path) -> type[ReadyComponent]:
    """Return the class of the trained component in a folder, without loading its weights.

    Raises
    ------
    ValueError
        If it is none of medjax's.
    """
    if read_labels(folder, TOKEN_CLASSIFICATION) is not None:
        return TokenClassification
    classes = read_labels(folder, TEXT_CLASSIFICATION)
    if classes is not None:
        # A classifier of texts that started from one of relations has the settings of that one.
        settings = read_json(folder / CONFIG_FILE).get(RELATION_SETTINGS)
        is_of_relations = bool(settings) and classes[0] == NO_RELATION
        return RelationClassification if is_of_relations else TextClassification
    msg = (
        f"{folder} is no trained component: found weights without the head of a token or sequence "
        "classifier (architectures in config.json); expected a checkpoint of medjax, or a model "
        "that was fine-tuned for one of these tasks"
    )
    raise ValueError(msg)
