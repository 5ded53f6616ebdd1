"""What RecBole's keys may hold: values that it would stumble over later, or take without using them."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from recbole_diffmm.errors import UserError, nearest

# RecBole's sparse_adam needs sparse gradients, which no general recommender has.
LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop")
_LEVELS = ("debug", "info", "warning", "error", "critical")
_INNER = {
    "eval_args": ("split", "group_by", "order", "mode"),
    "train_neg_sample_args": ("distribution", "sample_num", "alpha", "dynamic", "candidate_num"),
    "clip_grad_norm": ("max_norm", "norm_type", "error_if_nonfinite", "foreach"),
}
_NONE = (None, "None", "none")
# RecBole gives no default that would tell their type.
_MAPPINGS = ("threshold", "val_interval", "discretization", "preload_weight", "seq_len")
_LISTS = ("additional_feat_suffix", "normalize_field", *(f"alias_of_{kind}_id" for kind in ("user", "item")))
_OF_LABELS = ("auc", "logloss", "mae", "rmse")


def check_inner_keys(key: str, value: Any, source: str, model: str) -> None:
    """Refuse what RecBole does not know inside a key that holds keys, such as ``eval_args``.

    Raises:
        UserError: naming the key, where it stands and the nearest known one.
    """
    if isinstance(value, Mapping) and key in _INNER:
        _closed(key, value, _INNER[key], source, model)
        if key == "eval_args":
            _closed("eval_args.split", value.get("split"), ("RS", "LS"), source, model)
            _closed("eval_args.mode", value.get("mode"), ("valid", "test"), source, model)


def _closed(place: str, value: Any, known: Iterable[str], source: str, model: str) -> None:
    for key in value if isinstance(value, Mapping) else ():
        if key not in known:
            raise UserError(
                f"unknown key '{place}.{key}' in {source} for model {model}{nearest(str(key), known, cutoff=0.3)}"
                f" (known: {', '.join(known)})"
            )


def check_values(values: Mapping[str, Any], source: Callable[[str], str]) -> None:
    """Refuse values of known keys that cannot work, or that would not be used.

    Args:
        values: a whole configuration, as given or as RecBole completed it.
        source: says where the value of a key comes from.

    Raises:
        UserError: naming the key, where it stands, what it may be and what it is.
    """

    def refuse(key: str, wanted: str, value: Any = ...) -> NoReturn:
        got = repr(values.get(key) if value is ... else value)
        raise UserError(f"{key} in {source(key)} must be {wanted}, got {got[:80]}")

    for key in ("save_dataset", "save_dataloaders"):
        if values.get(key):
            refuse(key, "false: RecBole writes pickles there, which can run code when read")
    for key in ("dataset_save_path", "dataloaders_save_path"):
        if values.get(key):
            refuse(key, "left out: RecBole reads pickles there, which can run code")
    if not 6 <= values["metric_decimal_place"] <= 15:
        refuse("metric_decimal_place", "from 6, because RecBole rounds before early stopping, to 15")
    if values.get("loss_decimal_place") is not None and not 0 <= values["loss_decimal_place"] <= 15:
        refuse("loss_decimal_place", "from 0 to 15")
    for key, words in (("protocol", ("recbole", "paper")), ("state", _LEVELS), ("learner", LEARNERS)):
        value = values.get(key)
        if key == "state" and value is None:
            continue
        if not isinstance(value, str) or (value if key == "protocol" else value.lower()) not in words:
            near = nearest(str(value), words)
            raise UserError(f"{key} in {source(key)} must be {_either(words)}, got {value!r}{near}")
    for key in ("eval_users_per_batch", "eval_pairs_per_batch", "eval_batch_size", "train_batch_size"):
        if not _whole(values.get(key)) or not 1 <= values[key] < 2**62:
            refuse(key, "a whole number of at least 1 and less than 2**62")
    if values["eval_step"] < 1:
        refuse("eval_step", "at least 1")
    if not _whole(values["epochs"]) or values["epochs"] < 1:
        refuse("epochs", "a whole number of at least 1")
    for key in ("stopping_step", "worker", "resume_every"):
        if key in values and (not _whole(values[key]) or values[key] < 0):
            refuse(key, "a whole number that is not negative")
    if not _whole(values["seed"]) or not 0 <= values["seed"] < 2**32:
        refuse("seed", "a whole number from 0 to 2**32 - 1, which is what NumPy takes")
    if not _number(values["learning_rate"]) or not 0 < values["learning_rate"] <= 1e30:
        refuse("learning_rate", "a finite number above 0 and at most 1e30")
    if not _number(values["weight_decay"]) or not 0 <= values["weight_decay"] <= 1e30:
        refuse("weight_decay", "a finite number that is not negative and at most 1e30")
    for key in ("checkpoint_dir", "data_path"):
        if not isinstance(values.get(key), str) or not values[key]:
            refuse(key, "the name of a folder")
    if values.get("encoding") is not None and not _encoding(values["encoding"]):
        refuse("encoding", "an encoding of text that Python knows, such as utf-8 or latin-1")
    if values.get("rm_dup_inter") not in (None, "first", "last"):
        refuse("rm_dup_inter", "first or last, which of equal interactions to keep, or left out")
    for key in ("user_inter_num_interval", "item_inter_num_interval"):
        if values.get(key) is not None and not is_interval(values[key]):
            refuse(key, "an interval of numbers such as '[10,inf)', with quotes around it")
    for key in _MAPPINGS:
        if values.get(key) is not None and not isinstance(values[key], Mapping):
            refuse(key, "keys and values, the keys being columns")
    for key in _LISTS:
        if values.get(key) is not None and not isinstance(values[key], (list, tuple)):
            refuse(key, "a list of names")
    if values.get("normalize_all") not in (None, False, True):
        refuse("normalize_all", "true or false")
    for key in ("nproc", "world_size"):
        if values.get(key, 1) not in (1, None):
            refuse(key, "left out: training in several processes is not supported")
    _check_clipping(values, refuse)
    _check_metrics(values, refuse)
    _check_columns(values, refuse)
    _check_eval_args(values, refuse)
    _check_sampling(values, refuse)


def check_valid_metric(values: Mapping[str, Any], source: Callable[[str], str]) -> None:
    """Refuse a ``valid_metric`` that ``metrics`` and ``topk``, both lists by now, do not give.

    Raises:
        UserError: naming the nearest that they give.
    """
    name = str(values["valid_metric"])
    known = {f"{metric}@{k}".lower() for metric in values["metrics"] for k in values["topk"]}
    known |= {metric.lower() for metric in values["metrics"]}
    if name.lower() not in known:
        raise UserError(
            f"valid_metric is {name} ({source('valid_metric')}), which metrics and topk do not give"
            f"{nearest(name, known)}; set valid_metric too"
        )


def check_negatives(values: Mapping[str, Any], wanted: bool, source: Callable[[str], str]) -> None:
    """Refuse negatives for a model that takes none, and would read them as interactions, and none for one that does.

    Args:
        values: a whole configuration.
        wanted: whether the model takes negatives.
        source: says where the value of a key comes from.

    Raises:
        UserError: naming the key, where it stands and the model.
    """
    given = values["train_neg_sample_args"]
    distribution = given.get("distribution", "uniform") if isinstance(given, Mapping) else given
    if wanted == (distribution in _NONE):
        does, remedy = (
            ("compares interactions with negatives", ", or give it {distribution: uniform, sample_num: 1}")
            if wanted
            else ("samples no negatives", "")
        )
        key = "train_neg_sample_args"
        raise UserError(
            f"{key} in {source(key)} is {given!r}, but {values['model']} {does}; leave it out for this model{remedy}"
        )


def _check_clipping(values: Mapping[str, Any], refuse: Callable[..., NoReturn]) -> None:
    clip = values.get("clip_grad_norm")
    if clip in (None, {}):
        return
    if not isinstance(clip, Mapping) or not _number(clip.get("max_norm")) or clip["max_norm"] <= 0:
        refuse("clip_grad_norm", "keys and values such as {max_norm: 5}")


def _check_metrics(values: Mapping[str, Any], refuse: Callable[..., NoReturn]) -> None:
    metrics, topk = values["metrics"], values["topk"]
    if not isinstance(metrics, str) and not (_list(metrics) and all(isinstance(name, str) for name in metrics)):
        refuse("metrics", "a list of metrics' names such as [Recall, NDCG], at least one")
    from recbole.evaluator.register import metrics_dict

    for name in [metrics] if isinstance(metrics, str) else metrics:
        if name.lower() not in metrics_dict:
            known = [metric.__name__ for metric in metrics_dict.values()]
            refuse("metrics", f"names of metrics{nearest(name, known)} (known: {', '.join(known)})", name)
    if not _list(topk) and not _whole(topk):
        refuse("topk", "a list of positive whole numbers such as [10, 20]")
    if any(not _whole(k) or k < 1 for k in (topk if isinstance(topk, (list, tuple)) else [topk])):
        refuse("topk", "a list of positive whole numbers such as [10, 20]")
    if not isinstance(values["valid_metric"], str):
        refuse("valid_metric", "a metric at a cut-off such as Recall@20")


def _check_columns(values: Mapping[str, Any], refuse: Callable[..., NoReturn]) -> None:
    ids = [str(values["USER_ID_FIELD"]), str(values["ITEM_ID_FIELD"])]
    for key in ("load_col", "unload_col", "unused_col"):
        columns = values.get(key)
        if columns is None:
            continue
        if not isinstance(columns, Mapping):
            refuse(key, f"keys and values such as {{inter: [{', '.join(ids)}]}}")
        for names in columns.values():
            if names != "*" and not (isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)):
                refuse(key, f"lists of columns' names such as {{inter: [{', '.join(ids)}]}}")
        inter = columns.get("inter", [])
        if key == "load_col" and inter != "*" and not set(ids) <= set(inter):
            refuse(key, f"with {' and '.join(ids)} under inter, the columns of ids")
        if key != "load_col" and set(ids) & set(inter):
            refuse(key, f"without {' and '.join(ids)} under inter, the columns of ids")


def _check_eval_args(values: Mapping[str, Any], refuse: Callable[..., NoReturn]) -> None:
    given = values["eval_args"]
    if not isinstance(given, Mapping):
        refuse("eval_args", "keys and values such as {mode: full}")

    def refuse_inner(name: str, wanted: str) -> NoReturn:
        refuse("eval_args", f"given a {name} that is {wanted}", given[name])

    if given.get("group_by") not in (*_NONE, "user"):
        refuse_inner("group_by", "user or none")
    if given.get("order", "RO") not in ("RO", "TO"):
        refuse_inner("order", "RO (random) or TO (by time)")
    split = given.get("split", {"RS": [8, 1, 1]})
    if split is not None:
        if not isinstance(split, Mapping) or len(split) != 1:
            refuse_inner("split", "{RS: [0.8, 0.1, 0.1]} or {LS: valid_and_test}")
        ratios = split.get("RS")
        if "RS" in split and not (
            isinstance(ratios, (list, tuple))
            and len(ratios) == 3
            and all(_number(ratio) and ratio >= 0 for ratio in ratios)
            and ratios[0] > 0
        ):
            refuse_inner("split", "three shares such as {RS: [0.8, 0.1, 0.1]}")
        if "LS" in split and split["LS"] not in ("valid_and_test", "valid_only", "test_only"):
            refuse_inner("split", "{LS: valid_and_test}, valid_only or test_only")
    mode = given.get("mode", "full")
    for word in mode.values() if isinstance(mode, Mapping) else [mode]:
        sampled = isinstance(word, str) and word[:3] in ("uni", "pop") and word[3:].isdecimal() and int(word[3:]) > 0
        if word not in ("full", "labeled") and not sampled:
            refuse_inner("mode", "full, labeled, uniN or popN with a number N, for both or by {valid: ..., test: ...}")
        metrics = [values["metrics"]] if isinstance(values["metrics"], str) else values["metrics"]
        if word == "labeled" and any(metric.lower() not in _OF_LABELS for metric in metrics):
            refuse_inner("mode", f"full, uniN or popN, because labeled ranks nothing that {metrics} could measure")


def _check_sampling(values: Mapping[str, Any], refuse: Callable[..., NoReturn]) -> None:
    key = "train_neg_sample_args"
    given = values.get(key)
    if given in _NONE:
        return
    if not isinstance(given, Mapping):
        refuse(key, "keys and values such as {distribution: uniform, sample_num: 1}, or None")
    distribution = given.get("distribution", "uniform")
    if distribution in _NONE:
        return
    if distribution not in ("uniform", "popularity"):
        refuse(key, "given a distribution that is uniform, popularity or None", distribution)
    for name, least in (("sample_num", 1), ("candidate_num", 0)):
        if not _whole(given.get(name, least)) or given.get(name, least) < least:
            refuse(key, f"given a {name} that is a whole number of at least {least}", given[name])
    if given.get("dynamic") is True and given.get("candidate_num", 0) < 1:
        refuse(key, "given a candidate_num of at least 1 where dynamic is true", given.get("candidate_num", 0))
    if not _number(given.get("alpha", 1.0)):
        refuse(key, "given an alpha that is a number", given["alpha"])
    if not isinstance(given.get("dynamic", False), bool):
        refuse(key, "given a dynamic that is true or false", given["dynamic"])


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0


def _encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(codecs.lookup(value))
    except LookupError:
        return False


def is_interval(value: Any) -> bool:
    """Whether a value is what RecBole takes for intervals of numbers, such as ``[10,inf)`` or ``(0,1];[3,4)``."""
    return all(_is_one_interval(part.strip()) for part in str(value).split(";"))


def _is_one_interval(text: str) -> bool:
    ends = re.fullmatch(r"[\[(]([^,]+),([^,]+)[\])]", text)
    try:
        return ends is not None and float(ends[1]) <= float(ends[2])
    except ValueError:
        return False


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def require_room(model: str, n_items: int, max_items: int, bytes_per_pair: int, instead: str) -> None:
    """Refuse a catalogue that a closed form over all pairs of items would be too large for.

    Args:
        model: whose closed form.
        n_items: items of the catalogue.
        max_items: the largest catalogue allowed.
        bytes_per_pair: memory at the form's peak, for each pair of items.
        instead: a model that needs no such form.

    Raises:
        UserError: there are more items.
    """
    if n_items > max_items:
        raise UserError(
            f"{model} inverts a matrix of all items, {n_items} here ({bytes_per_pair * n_items**2 / 1e9:.0f} GB), more "
            f"than max_items={max_items}; raise max_items if the memory is there, or take {instead}"
        )
