"""From a model's name to its class, trainer and dataset: this package's first, RecBole's otherwise."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from recbole_diffmm.errors import UserError, nearest, quoted
from recbole_diffmm.extras import require

_MODEL_FOLDER = Path(__file__).parent / "model"
# What RecBole's models import only when they need it, and the extra of this package that brings it.
_EXTRAS: dict[str, tuple[str, str, Callable[[Any], bool]]] = {
    "NCL": ("faiss", "ncl", lambda config: True),
    "LDiffRec": ("kmeans_pytorch", "ldiffrec", lambda config: (config["n_cate"] or 1) > 1),
    "NNCF": ("community", "nncf", lambda config: config["neigh_info_method"] == "louvain"),
}
_replaced: dict[str, Any] = {}


@lru_cache(maxsize=1)
def own_model_names() -> tuple[str, ...]:
    """Names of this package's models: each file of `model/` that holds a class of its own name."""
    names = []
    for path in sorted(_MODEL_FOLDER.glob("*.py")):
        # Read, not imported: a listing needs no model.
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.lower() == path.stem and node.bases:
                names.append(node.name)
    return tuple(name for name in names if name not in {"MultimodalRecommender"})


@lru_cache(maxsize=1)
def recbole_model_names() -> tuple[str, ...]:
    """Names of RecBole's general recommenders."""
    from recbole.model import general_recommender
    from recbole.model.abstract_recommender import GeneralRecommender

    return tuple(
        sorted(
            name
            for name, value in vars(general_recommender).items()
            if isinstance(value, type) and issubclass(value, GeneralRecommender)
        )
    )


def model_names() -> list[str]:
    """Names of every model that `run` knows: this package's, then RecBole's general recommenders."""
    return [*own_model_names(), *recbole_model_names()]


def is_own(name: str) -> bool:
    """Whether the model of this name is one of this package's."""
    return name in own_model_names()


def get_model(name: str) -> type:
    """Return the class of the model called `name`, this package's or one of RecBole's general recommenders.

    Raises:
        UserError: no model has this name; the message names the nearest one.
    """
    if name in own_model_names():
        return getattr(importlib.import_module(f"recbole_diffmm.model.{name.lower()}"), name)
    if name in recbole_model_names():
        from recbole.model import general_recommender

        module = f"recbole_diffmm.builtin.{name.lower()}"
        found = importlib.import_module(module) if importlib.util.find_spec(module) else general_recommender
        return getattr(found, name)
    import recbole

    others = Path(recbole.__file__).parent / "model"
    for kind in ("sequential", "context_aware", "knowledge_aware"):
        if name.isidentifier() and (others / f"{kind}_recommender" / f"{name.lower()}.py").is_file():
            raise UserError(
                f"{name} is no general recommender but a {kind.replace('_', '-')} one; run it by RecBole's own "
                f"run_recbole(model={name!r})"
            )
    raise UserError(f"unknown model {quoted(name)}{nearest(name, model_names())} (recbole-diffmm models lists all)")


def require_extras(config: Any) -> None:
    """Refuse a model whose optional package is missing, naming the extra to install.

    Raises:
        UserError: the package is not installed.
    """
    name = config["model"]
    package, extra, needed = _EXTRAS.get(name, ("", "", lambda config: False))
    if needed(config):
        require(extra, name, package)


def is_multimodal(model_class: type) -> bool:
    """Whether a model reads item modalities."""
    return bool(getattr(model_class, "uses_modalities", False))


def get_dataset_class(config: Any) -> type:
    """Return the dataset class for the configured model: one with modalities, or what RecBole would take."""
    from recbole.data import dataset

    from recbole_diffmm.data.dataset import CheckedDataset, MultimodalDataset

    if is_multimodal(config.model_class):
        return MultimodalDataset
    return getattr(dataset, f"{config['model']}Dataset", CheckedDataset)


def get_trainer_class(config: Any) -> type:
    """Return this package's trainer for the configured model, or RecBole's with the same records and checkpoints."""
    from recbole.utils import utils

    return _trainer(config["model"], config["MODEL_TYPE"], _replaced.get("get_trainer", utils.get_trainer))


def _trainer(name: str, model_type: Any, get_trainer: Callable[[Any, str], type]) -> type:
    module = f"recbole_diffmm.trainer.{name.lower()}"
    if importlib.util.find_spec(module) is not None:
        return getattr(importlib.import_module(module), f"{name}Trainer")
    from recbole_diffmm.trainer.base import with_records

    return with_records(get_trainer(model_type, name))


def create_dataset(config: Any) -> Any:
    """Build the configured dataset, make the bundled ones first, and settle what depends on the number of items.

    Raises:
        UserError: the data cannot be found or read, or a cut-off is larger than the catalogue.
    """
    from recbole_diffmm.config import Config

    if not isinstance(config, Config):
        original: Callable[[Any], Any] = _replaced["create_dataset"]
        return original(config)
    config.locate_data()
    with data_errors_told(config):
        dataset = get_dataset_class(config)(config)
    config.settle(dataset.item_num)
    return dataset


@contextmanager
def data_errors_told(config: Any) -> Iterator[None]:
    """Turn what RecBole raises while it reads and splits data into one line.

    Raises:
        UserError: in place of any of RecBole's errors.
    """
    try:
        yield
    except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        text = " ".join(str(error.args[0] if error.args else error).split()) or type(error).__name__
        told = f"dataset {config['dataset']}: {text} (told by RecBole; look at the settings and columns that it names)"
        raise UserError(told) from error


def _refuse_what_run_alone_does(config: Any) -> None:
    # RecBole's functions would select, mask and train from the start as they always do, without a word.
    for key, value in (("protocol", "paper"), ("resume", True)):
        if config[key] == value:
            raise UserError(
                f"{key} in {config.source(key)} is {str(value).lower()}, which RecBole's own functions do not know; "
                f"leave it out, or call recbole_diffmm.run({config['model']!r}, {config['dataset']!r}, ...)"
            )


def register() -> None:
    """Make RecBole's own `run_recbole`, `objective_function` and HyperTuning work with this package's models by name.

    RecBole looks names up through four functions; each is replaced, in the modules that hold it, by one that answers
    for this package's models and passes everything else on, and so is the one that unpickles loaders. RecBole's models
    keep RecBole's `Config`.
    """
    if _replaced:
        return
    from recbole import config as recbole_config
    from recbole import data, utils
    from recbole.config import configurator
    from recbole.data import utils as data_utils
    from recbole.quick_start import quick_start
    from recbole.utils import utils as utils_utils

    _replaced.update(
        get_model=utils_utils.get_model,
        get_trainer=utils_utils.get_trainer,
        create_dataset=data_utils.create_dataset,
        load_split_dataloaders=data_utils.load_split_dataloaders,
        Config=configurator.Config,
    )

    def get_model_or_recbole(model_name: str) -> type:
        if is_own(model_name):
            return get_model(model_name)
        try:
            return _replaced["get_model"](model_name)
        except ModuleNotFoundError as error:
            # RecBole looks for an unknown name among its wrappers of LightGBM and XGBoost last.
            if error.name in {"lightgbm", "xgboost"} and model_name.lower() != error.name:
                return get_model(model_name)
            raise

    def get_trainer_or_recbole(model_type: Any, model_name: str) -> type:
        get_trainer = _replaced["get_trainer"]
        return (
            _trainer(model_name, model_type, get_trainer) if is_own(model_name) else get_trainer(model_type, model_name)
        )

    def config_for(
        model: Any = None,
        dataset: str | None = None,
        config_file_list: list[str] | None = None,
        config_dict: dict[str, Any] | None = None,
    ) -> Any:
        from recbole_diffmm.config import Config, named_model

        name = named_model(model, config_file_list, config_dict)
        kind = Config if name is not None and is_own(name) else _replaced["Config"]
        config = kind(model=model, dataset=dataset, config_file_list=config_file_list, config_dict=config_dict)
        if kind is Config:
            _refuse_what_run_alone_does(config)
        return config

    def load_split_dataloaders(config: Any) -> Any:
        from recbole_diffmm.config import Config

        # RecBole would unpickle loaders that it finds in `checkpoint_dir`, or where the configuration says.
        return None if isinstance(config, Config) else _replaced["load_split_dataloaders"](config)

    for module in (utils, utils_utils, configurator, quick_start):
        module.get_model = get_model_or_recbole
    for module in (utils, utils_utils, quick_start):
        module.get_trainer = get_trainer_or_recbole
    for module in (data, data_utils, quick_start):
        module.create_dataset = create_dataset
    data_utils.load_split_dataloaders = load_split_dataloaders
    quick_start.Config = config_for
    # recbole.config.Config stays the class: others subclass it.
    assert recbole_config.Config is _replaced["Config"]
