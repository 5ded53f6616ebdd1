"""The configuration of a run: RecBole's, from typed sources only, closed against unknown and mistyped keys."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import numpy as np
import recbole
import torch
import yaml
from recbole.config.configurator import Config as RecBoleConfig
from recbole.utils import EvaluatorType, InputType, ModelType

from recbole_diffmm import checks, registry
from recbole_diffmm.errors import UserError, nearest, quoted
from recbole_diffmm.sources import Loader, properties_dir, property_folders, read_yaml, shown

RECBOLE_PROPERTIES = Path(recbole.__file__).parent / "properties"
COMMAND_LINE = "the command line"
CALL = "config_dict"
# What a folder and the files of a run can be called by.
_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f]{1,150}")
# Times as many users as by default are scored at once on a GPU, up to so many scores (half a GiB): it has the room, and
# small batches leave it idle.
GPU_USERS = 8
GPU_CELLS = 2**27

# Keys that RecBole reads without giving them a default in its properties.
_UNLISTED = frozenset(
    "model dataset config_files encoding wandb_project log_wandb nproc world_size local_rank verbose "
    "benchmark_filename user_inter_num_interval item_inter_num_interval".split()
)
# What else the file beside a dataset's data may say. It comes with the data: it must not choose where a run writes.
_OF_DATA = frozenset("modalities encoding eval_args".split())
# Where RecBole's words allow more than the type of the default.
_ALSO: dict[str, tuple[type, ...]] = {"metrics": (str,), "topk": (int,), "gpu_id": (int,)}
# What only a running process has; rebuilt by `from_plain`.
_ENUMS: dict[str, type[Enum]] = {"MODEL_TYPE": ModelType, "MODEL_INPUT_TYPE": InputType, "eval_type": EvaluatorType}


def _property_layers(kind: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    paths = [folder / kind / f"{name}.yaml" for folder in property_folders()]
    return [(shown(path), read_yaml(path)) for path in paths if path.is_file()]


@lru_cache(maxsize=1)
def _recbole_defaults() -> dict[str, Any]:
    return {
        **read_yaml(RECBOLE_PROPERTIES / "dataset" / "sample.yaml"),
        **read_yaml(RECBOLE_PROPERTIES / "overall.yaml"),
    }


def _default_values(model: str) -> dict[str, Any]:
    return _merged(
        [
            ("", _recbole_defaults()),
            ("", read_yaml(properties_dir() / "overall.yaml")),
            ("", _recbole_model(model)),
        ]
    )


@cache
def _recbole_model(name: str) -> dict[str, Any]:
    path = RECBOLE_PROPERTIES / "model" / f"{name}.yaml"
    return read_yaml(path) if path.is_file() and registry.is_own(name) is False else {}


def named_model(model: Any, files: Sequence[str] | None, values: Mapping[str, Any] | None) -> str | None:
    """The name of the model that a call of RecBole's means: its argument, or the key `model` of dict or files."""
    if model is None and values:
        model = values.get("model")
    if model is None:
        for file in files or ():
            model = read_yaml(Path(file)).get("model", model)
    if isinstance(model, type):
        return model.__name__
    return model


class Config(RecBoleConfig):
    """RecBole's configuration, read from typed sources and refusing what it does not know.

    The strongest source wins: `overrides`, `config_dict`, `config_file_list` (later files win),
    `properties/dataset/<dataset>.yaml`, `properties/model/<model>.yaml`, `properties/overall.yaml`, RecBole's defaults.
    No value is evaluated as code, and the arguments of the surrounding process are not read.

    Args:
        model: name or class; None takes the key `model` of the sources.
        dataset: name; None takes the key `dataset` of the sources.
        config_file_list: YAML files.
        config_dict: typed values.
        overrides: typed values that win over all others, as `sources.parse_overrides` gives them.

    Raises:
        UserError: an unknown, mistyped or missing key, model or file; the message names where it stands.
    """

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | Path] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self._layers: list[tuple[str, dict[str, Any]]] = []
        for file in config_file_list or ():
            self._layers.append((str(file), read_yaml(Path(file))))
        given = {str(key): value for key, value in (config_dict or {}).items()}
        self._layers.append((CALL, copy.deepcopy(given)))
        self._layers.append((COMMAND_LINE, copy.deepcopy(dict(overrides or {}))))
        try:
            super().__init__(model, dataset)
        except (KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(self._told(error)) from None
        self._check_values()

    # RecBole's steps, in its order ---------------------------------------------------------------------------------

    def _init_parameters_category(self) -> None:
        super()._init_parameters_category()
        # RecBole appends to these lists, which are module globals.
        self.parameters: dict[str, list[str]] = {name: list(keys) for name, keys in self.parameters.items()}

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return Loader

    def _load_config_files(self, file_list: Any) -> dict[str, Any]:
        return _merged(layer for layer in self._layers if layer[0] not in {CALL, COMMAND_LINE})

    def _load_variable_config_dict(self, config_dict: Any) -> dict[str, Any]:
        return dict(self._layers[-2][1])

    def _load_cmd_line(self) -> dict[str, Any]:
        return dict(self._layers[-1][1])

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> tuple[str, type, str]:
        model = model if model is not None else self.external_config_dict.get("model")
        dataset = dataset if dataset is not None else self.external_config_dict.get("dataset")
        for name, value in (("model", model), ("dataset", dataset)):
            if value is None or value == "":
                raise UserError(f"no {name} is given; name it as an argument, in a config file or as --{name}=NAME")
            for source, values in self._layers[-2:]:
                other = values.get(name)
                if other is not None and str(other) != getattr(value, "__name__", str(value)):
                    told = getattr(value, "__name__", value)
                    raise UserError(f"{name} is {told} and, in {source}, {quoted(other)}; give it once")
        if not _NAME.fullmatch(str(dataset)):
            raise UserError(f"dataset {quoted(dataset)} is no name of a folder; data_path says where its folder is")
        if isinstance(model, type):
            return model.__name__, model, str(dataset)
        model_class = registry.get_model(str(model))
        return str(model), model_class, str(dataset)

    def _load_internal_config_dict(self, model: str, model_class: Any, dataset: str) -> None:
        if getattr(model_class, "type", None) not in {ModelType.GENERAL, ModelType.TRADITIONAL}:
            raise UserError(f"{model} is no general recommender; run it by RecBole's own run_recbole(model={model!r})")
        folders = property_folders()
        ours = [
            (shown(path), read_yaml(path)) for path in (folder / "overall.yaml" for folder in folders) if path.is_file()
        ]
        of_model = _property_layers("model", model)
        described = _property_layers("dataset", dataset)
        of_dataset = [*self._layer_beside_data(dataset, [*ours, *of_model, *described]), *described]
        self._defaults = _default_values(model)
        given = [*ours[1:], *of_model, *of_dataset, *self._layers]
        self._check_keys(given)
        layers = [("RecBole", _recbole_defaults()), *ours, ("RecBole", _recbole_model(model)), *of_model, *of_dataset]
        self.internal_config_dict = copy.deepcopy(_merged(layers))
        self.internal_config_dict["MODEL_TYPE"] = model_class.type
        self._origin = {key: source for source, values in [*layers, *self._layers] for key in values}
        self._explicit_batch = any("eval_batch_size" in values for _, values in given)
        self._asked_users = any("eval_users_per_batch" in values for _, values in given)
        extra = [key for _, values in of_dataset for key in values if key not in self.parameters["Dataset"]]
        self.parameters["Dataset"] += extra

    def _get_final_config_dict(self) -> dict[str, Any]:
        # Before RecBole completes the values: it stumbles over wrong ones.
        values: dict[str, Any] = super()._get_final_config_dict()
        checks.check_values(values, self.source)
        return values

    def _layer_beside_data(
        self, dataset: str, properties: list[tuple[str, dict[str, Any]]]
    ) -> list[tuple[str, dict[str, Any]]]:
        """What `convert` wrote about a dataset beside its files: `<data_path>/<dataset>/<dataset>.yaml`."""
        data_path = _merged([*properties, *self._layers]).get("data_path", "dataset")
        path = Path(str(data_path)) / dataset / f"{dataset}.yaml"
        if not path.is_file():
            return []
        values, known = read_yaml(path), {*self.parameters["Dataset"], *_OF_DATA}
        for key in values:
            if key not in known:
                raise UserError(
                    f"{key!r} in {shown(path)} is no key that describes data, and a file beside data holds no others"
                    f"{nearest(key, known, cutoff=0.8)}; move it to properties/dataset/{dataset}.yaml"
                )
        return [(shown(path), values)]

    def _set_default_parameters(self) -> None:
        given = self.final_config_dict["data_path"]
        super()._set_default_parameters()
        # RecBole sends "ml-100k" to the copy inside its wheel; here it is a dataset like any other.
        self.final_config_dict["data_path"] = str(Path(given) / self.dataset)

    def _init_device(self) -> None:
        super()._init_device()
        if not self.final_config_dict["use_gpu"]:
            self.final_config_dict["device"] = torch.device("cpu")

    # Checks --------------------------------------------------------------------------------------------------------

    def _known_keys(self) -> set[str]:
        settings = getattr(self.model_class, "config_class", None)
        fields = set(settings.model_fields) if settings is not None else _keys_read_by(self.model_class)
        return {*self._defaults, *fields, *_UNLISTED, *(key for keys in self.parameters.values() for key in keys)}

    def _check_keys(self, layers: Iterable[tuple[str, dict[str, Any]]]) -> None:
        known = self._known_keys()
        own_fields = getattr(getattr(self.model_class, "config_class", None), "model_fields", {})
        for source, values in layers:
            for key, value in values.items():
                if key not in known:
                    raise UserError(
                        f"unknown key {key!r} in {source} for model {self.model}{nearest(key, known, cutoff=0.3)}"
                    )
                if key == "device":  # which models read and RecBole sets
                    raise UserError(f"{key} in {source} would not be used; set use_gpu: false, or gpu_id")
                if key == "local_rank":
                    raise UserError(f"{key} in {source}: training in several processes is not supported; leave it out")
                checks.check_inner_keys(key, value, source, self.model)
                if key in self._defaults and key not in own_fields:
                    wanted = _mistyped(key, value, self._defaults[key], strict=key not in _recbole_model(self.model))
                    if wanted:
                        raise UserError(f"{key} in {source} must be {wanted}, got {quoted(value)}")

    def _check_values(self) -> None:
        checks.check_valid_metric(self.final_config_dict, self.source)
        self._check_dataset()
        settings = getattr(self.model_class, "config_class", None)
        if settings is not None:
            settings.from_config(self.final_config_dict, self.source)
        if registry.is_own(self.model):
            wanted = self.model_class.input_type == InputType.PAIRWISE
            checks.check_negatives(self.final_config_dict, wanted, self.source)
        registry.require_extras(self)

    def source(self, key: str) -> str:
        """Where the value of `key` comes from: a file, "config_dict", "the command line" or "RecBole"."""
        return self._origin.get(key, "the configuration")

    def _told(self, error: Exception) -> str:
        text = " ".join(str(error.args[0] if error.args else error).split())
        return f"{text} (model {getattr(self, 'model', '?')})" if text else type(error).__name__

    # What is known only later --------------------------------------------------------------------------------------

    def locate_data(self) -> None:
        """Make a bundled dataset where its files are missing and point `data_path` at the dataset's folder."""
        from recbole_diffmm.data import bundled

        folder = Path(self.final_config_dict["data_path"])
        self.final_config_dict["data_path"] = str(bundled.prepare(self.dataset, folder.parent) or folder)
        self._check_dataset()

    def _check_dataset(self) -> None:
        from recbole_diffmm.data import bundled

        folder = Path(self.final_config_dict["data_path"])
        if self.dataset in bundled.BUNDLED or folder.is_dir():
            return
        names = dataset_names(folder.parent)
        if self.dataset in names:
            hint = "; dataset/README.md says how to get and convert it; data_path says where datasets are"
        else:
            hint = nearest(self.dataset, names) or f"; known datasets: {', '.join(names)}"
        raise UserError(f"unknown dataset {self.dataset!r}: there is no folder {folder}{hint}")

    def settle(self, n_items: int) -> None:
        """Turn `eval_users_per_batch` into RecBole's batch of user-item cells, `n_items` counting PAD.

        Raises:
            UserError: a cut-off of `topk` is larger than the catalogue.
        """
        largest = max(self.final_config_dict["topk"])
        if largest > n_items - 1:
            raise UserError(f"topk in {self.source('topk')} asks for {largest} items, {self.dataset} has {n_items - 1}")
        if self._explicit_batch:
            return
        n_users = int(self.final_config_dict["eval_users_per_batch"])
        if self.final_config_dict["device"].type == "cuda" and not self._asked_users:
            n_users = max(n_users, min(GPU_USERS * n_users, GPU_CELLS // n_items))
        cells = n_users * n_items
        from recbole.model.abstract_recommender import GeneralRecommender

        if self.model_class.full_sort_predict is GeneralRecommender.full_sort_predict:
            # Scored pair by pair: the batch is what goes through the network at once.
            cells = min(cells, int(self.final_config_dict["eval_pairs_per_batch"]))
        self.final_config_dict["eval_batch_size"] = cells

    # Plain values --------------------------------------------------------------------------------------------------

    def plain(self) -> dict[str, Any]:
        """The configuration as JSON values, for checkpoints and records."""
        return plain_config(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Config:
        """Rebuild a configuration from what :meth:`plain` gave, on this machine's device.

        Args:
            values: what :meth:`plain` gave.
            overrides: typed values that win over them, checked as those of a new configuration.

        Raises:
            UserError: the values name a model that does not exist here, or an override is unknown or wrong.
        """
        try:
            config = cast("Config", _rebuilt(cls, values))
            checks.check_values(config.final_config_dict, config.source)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise UserError(f"the checkpoint's configuration is damaged ({reason}); give another checkpoint") from None
        if overrides:
            config._override(overrides)
        return config

    def _override(self, overrides: Mapping[str, Any]) -> None:
        for key in ("model", "dataset"):
            if key in overrides:
                raise UserError(
                    f"{key} in {COMMAND_LINE} cannot differ from the checkpoint's, {self[key]}; leave it out"
                )
        self._defaults = _default_values(self.model)
        self._check_keys([(COMMAND_LINE, dict(overrides))])
        values = self.final_config_dict
        # RecBole completes it by the dataset's name once more.
        values["data_path"] = str(Path(values["data_path"]).parent)
        values.update(copy.deepcopy(dict(overrides)))
        self._origin.update(dict.fromkeys(overrides, COMMAND_LINE))
        self._explicit_batch = "eval_batch_size" in overrides or not overrides.keys() & {
            "eval_users_per_batch",
            "eval_pairs_per_batch",
        }
        self._asked_users = "eval_users_per_batch" in overrides
        checks.check_values(values, self.source)
        device = values["device"]
        try:
            self._set_default_parameters()
            self._set_train_neg_sample_args()
            for phase in ("valid", "test"):
                self._set_eval_neg_sample_args(phase)
        except (KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(self._told(error)) from None
        values["device"] = device if values["use_gpu"] else torch.device("cpu")
        self._check_values()


def dataset_names(data_path: str | Path) -> list[str]:
    """Names of the datasets that have properties or a folder under `data_path`."""
    names = {path.stem for folder in property_folders() for path in (folder / "dataset").glob("*.yaml")}
    if Path(data_path).is_dir():
        names |= {path.name for path in Path(data_path).iterdir() if path.is_dir()}
    return sorted(names)


def plain_config(config: RecBoleConfig) -> dict[str, Any]:
    """Any RecBole configuration as JSON values."""
    return {key: _plain(value) for key, value in config.final_config_dict.items()}


def config_from_plain(values: Mapping[str, Any]) -> RecBoleConfig:
    """The configuration that `plain_config` was given, of the same class."""
    return _rebuilt(Config if "protocol" in values else RecBoleConfig, values)


def _rebuilt(kind: Any, values: Mapping[str, Any]) -> Any:
    config = kind.__new__(kind)
    config.compatibility_settings()
    RecBoleConfig._init_parameters_category(config)
    config.parameters = {name: list(keys) for name, keys in config.parameters.items()}
    restored = json.loads(json.dumps(dict(values)))
    for key, enum in _ENUMS.items():
        if isinstance(restored.get(key), str):
            restored[key] = enum[restored[key]]
    available = torch.cuda.is_available() and restored.get("use_gpu", True)
    restored["device"] = torch.device("cuda" if available else "cpu")
    config.model, config.dataset = restored["model"], restored["dataset"]
    from recbole.utils import utils

    own = registry.is_own(config.model) or kind is not RecBoleConfig
    config.model_class = registry.get_model(config.model) if own else utils.get_model(config.model)
    config.external_config_dict = {}
    config.internal_config_dict = {}
    config.final_config_dict = restored
    config._layers = []
    config._origin = dict.fromkeys(restored, "the checkpoint")
    config._explicit_batch = config._asked_users = True  # settled when it was written
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def _merged(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for _, values in layers:
        merged.update(values)
    return merged


@cache
def _keys_read_by(model_class: type) -> frozenset[str]:
    """Keys that a model's source reads from its configuration: RecBole's YAML does not list them all."""
    import inspect

    keys: set[str] = set()
    for base in model_class.__mro__:
        if base.__module__.startswith("recbole") or base is model_class:
            try:
                keys.update(re.findall(r"config\[\s*['\"]([\w-]+)['\"]\s*\]", inspect.getsource(base)))
            except (OSError, TypeError):
                continue
    return frozenset(keys)


def _mistyped(key: str, value: Any, default: Any, *, strict: bool) -> str:
    """What `value` should have been, judged by the type of `default`; empty where it fits."""
    if default is None or (isinstance(value, _ALSO.get(key, ())) and not isinstance(value, bool)):
        return ""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        # RecBole's YAML of a model writes 1 where it reads a weight.
        loose = not strict and default in {0, 1} and number
        return "" if loose or (number and isinstance(value, int)) else "a whole number"
    if isinstance(default, float):
        return "" if number else "a number"
    for kind, word in ((str, "a word"), (list, "a list"), (dict, "keys and values")):
        if isinstance(default, kind):
            return "" if value is None or isinstance(value, kind) else word
    return ""


def describe_model(name: str) -> str:
    """Return a table of a model's own settings: key, type, default and meaning where they are declared.

    Raises:
        UserError: no model has this name.
    """
    from tabulate import tabulate

    model_class: Any = registry.get_model(name)
    settings = getattr(model_class, "config_class", None)
    values = _merged([("", _recbole_model(name)), *_property_layers("model", name)])
    if settings is None:
        rows = [[key, type(value).__name__, value, ""] for key, value in values.items()]
    else:
        rows = [
            [
                key,
                _type_in_words(field.annotation),
                values.get(key, field.default),
                field.description or "",
            ]
            for key, field in settings.model_fields.items()
        ]
        rows += [
            [key, type(value).__name__, value, ""] for key, value in values.items() if key not in settings.model_fields
        ]
    rows = [["empty" if cell is None else cell for cell in row] for row in rows]
    return tabulate(
        rows, headers=["key", "type", "value", "meaning"], maxcolwidths=[None, 30, 24, 60], disable_numparse=True
    )


def _type_in_words(annotation: Any) -> str:
    """A field's type as somebody who writes YAML would say it, without bounds: ``int or empty``, ``list of int``."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "empty"
    if origin is Annotated:
        return _type_in_words(parts[0])
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in {list, tuple}:
        return f"list of {_type_in_words(parts[0])}"
    if origin is dict:
        return f"{_type_in_words(parts[1])} per {_type_in_words(parts[0])}"
    if parts:
        return " or ".join(_type_in_words(part) for part in parts)
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
