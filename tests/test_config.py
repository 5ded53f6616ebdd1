"""Sources and their order, typed values, and one line for every mistake."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from recbole_diffmm import registry
from recbole_diffmm.config import Config, config_from_plain, plain_config
from recbole_diffmm.errors import UserError
from recbole_diffmm.sources import parse_overrides, properties_dir


def refused(*arguments: Any, **keywords: Any) -> str:
    with pytest.raises(UserError) as caught:
        Config(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# Order -------------------------------------------------------------------------------------------------------------


def test_the_strongest_source_wins(tmp_path: Path) -> None:
    def rate(**sources: Any) -> float:
        return Config("BPR", "toy", **sources)["learning_rate"]

    assert rate() == 0.001
    write(tmp_path / "properties" / "overall.yaml", "learning_rate: 0.01\n")
    assert rate() == 0.01
    write(tmp_path / "properties" / "model" / "BPR.yaml", "learning_rate: 0.02\n")
    assert rate() == 0.02
    write(tmp_path / "properties" / "dataset" / "toy.yaml", "learning_rate: 0.03\n")
    assert rate() == 0.03
    first = write(tmp_path / "first.yaml", "learning_rate: 0.04\n")
    second = write(tmp_path / "second.yaml", "learning_rate: 0.05\n")
    assert rate(config_file_list=[first]) == 0.04
    assert rate(config_file_list=[first, second]) == 0.05
    assert rate(config_file_list=[first], config_dict={"learning_rate": 0.06}) == 0.06
    strongest = {"learning_rate": 0.07}
    assert rate(config_file_list=[first], config_dict={"learning_rate": 0.06}, overrides=strongest) == 0.07


def test_files_may_name_model_and_dataset(tmp_path: Path) -> None:
    file = write(tmp_path / "both.yaml", "model: LightGCN\ndataset: toy\n")
    config = Config(config_file_list=[file])
    assert (config.model, config.dataset, config.model_class.__name__) == ("LightGCN", "toy", "LightGCN")
    assert "no model is given" in refused(dataset="toy")
    assert "no dataset is given" in refused("BPR")


def test_a_datasets_own_file_beside_its_data_is_read(tmp_path: Path) -> None:
    write(tmp_path / "dataset" / "mine" / "mine.yaml", "benchmark_filename: [train, valid, test]\n")
    assert Config("BPR", "mine")["benchmark_filename"] == ["train", "valid", "test"]


@pytest.mark.parametrize("properties", ["overall", "model/BPR", "dataset/mine"])
def test_it_is_looked_for_where_the_data_are_whoever_says_so(properties: str, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "mine" / "mine.yaml", "benchmark_filename: [a, b, c]\n")
    write(tmp_path / "properties" / f"{properties}.yaml", "data_path: elsewhere\n")
    config = Config("BPR", "mine")
    assert (config["data_path"], config["benchmark_filename"]) == ("elsewhere/mine", ["a", "b", "c"])


@pytest.mark.parametrize(
    "line",
    ["checkpoint_dir: elsewhere", "log_wandb: true", "dataloaders_save_path: x.pth", "learning_rate: 0.1", "n_cate: 2"],
)
def test_a_file_beside_data_describes_data_alone(line: str, tmp_path: Path) -> None:
    write(tmp_path / "dataset" / "mine" / "mine.yaml", f"benchmark_filename: [train, valid, test]\n{line}\n")
    told = refused("LDiffRec", "mine")
    assert f"{line.split(':')[0]!r} in dataset/mine/mine.yaml" in told
    assert told.endswith("move it to properties/dataset/mine.yaml")


@pytest.mark.parametrize("key", ["dataset_save_path", "dataloaders_save_path"])
def test_no_pickle_is_read_by_name(key: str) -> None:
    assert f"{key} in config_dict must be left out" in refused("BPR", "toy", config_dict={key: "x.pth"})


def test_the_arguments_of_the_process_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--learning_rate=7", "--cov=x", "--epochs=1"])
    assert Config("BPR", "toy")["learning_rate"] == 0.001


def test_no_value_is_evaluated() -> None:
    config = Config(
        "BPR", "toy", config_dict={"log_dir": "3/4"}, overrides={"results_dir": "__import__('os').getcwd()"}
    )
    assert config["log_dir"] == "3/4"
    assert config["results_dir"] == "__import__('os').getcwd()"


def test_what_was_given_is_not_changed() -> None:
    given = {"eval_args": {"mode": "full"}, "train_neg_sample_args": {"sample_num": 2, "distribution": "uniform"}}
    before = json.dumps(given)
    Config("BPR", "toy", config_dict=given)
    assert json.dumps(given) == before
    assert Config("BPR", "toy")["train_neg_sample_args"]["sample_num"] == 1


def test_configurations_do_not_leak_into_each_other() -> None:
    before = set(Config("BPR", "toy").final_config_dict)
    Config("DiffMM", "toy")
    assert set(Config("BPR", "toy").final_config_dict) == before


# Values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("0.5", 0.5),
        ("3", 3),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("{'rating': '[3,inf)'}", {"rating": "[3,inf)"}),
        ("", None),
        ("~", None),
        ("text", "text"),
        ("os.getcwd()", "os.getcwd()"),
        ("a=b", "a=b"),
        ("1e-4x", "1e-4x"),
    ],
)
def test_command_line_values_are_yaml(text: str, value: Any) -> None:
    parsed = parse_overrides([f"--key={text}"])["key"]
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["epochs=3"], "write --key=value"),
        (["--epochs"], "write --key=value"),
        (["--=3"], "write --key=value"),
        (["--topk=[1, 2"], "as YAML"),
        (["--topk=!!python/object/apply:os.getcwd []"], "as YAML"),
        (["--epochs=3", "--epochs=4"], "given twice"),
    ],
)
def test_unreadable_arguments(arguments: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_overrides(arguments)


# Mistakes ----------------------------------------------------------------------------------------------------------


def test_unknown_keys_name_place_and_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", "learning_rat: 0.1\n")
    message = refused("BPR", "toy", [file])
    assert "'learning_rat'" in message and str(file) in message and "learning_rate" in message
    assert "the command line" in refused("BPR", "toy", overrides={"epoch": 3})
    assert "config_dict" in refused("BPR", "toy", config_dict={"epoch": 3})
    assert "did you mean temperature" in refused("DiffMM", "toy", overrides={"temprature": 1.0})
    write(tmp_path / "properties" / "model" / "BPR.yaml", "embeding_size: 3\n")
    message = refused("BPR", "toy")
    assert "properties/model/BPR.yaml" in message and "embedding_size" in message


def test_a_key_of_another_model_is_unknown() -> None:
    assert "unknown key 'n_layers'" in refused("BPR", "toy", overrides={"n_layers": 2})


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("learning_rate", "fast", "a number"),
        ("learning_rate", True, "a number"),
        ("learning_rate", None, "a number"),
        ("learning_rate", 0, "above 0"),
        ("epochs", 1.5, "a whole number"),
        ("epochs", -1, "at least 1"),
        ("epochs", 0, "at least 1"),
        ("epochs", True, "a whole number"),
        ("metrics", {"Recall": 1}, "a list"),
        ("eval_args", "full", "keys and values"),
        ("reproducibility", "yes please", "true or false"),
        ("embedding_size", "64", "a whole number"),
        ("metric_decimal_place", 4, "from 6"),
        ("metric_decimal_place", 10**20, "to 15"),
        ("loss_decimal_place", -3, "from 0 to 15"),
        ("train_batch_size", 10**20, "less than 2"),
        ("weight_decay", 1e308, "at most 1e30"),
        ("protocol", "papers", "recbole or paper"),
        ("eval_users_per_batch", 0, "at least 1"),
        ("save_dataset", True, "false"),
        ("save_dataloaders", True, "false"),
        ("valid_metric", "Recall@30", "valid_metric"),
        ("metrics", ["Recal"], "Recal"),
        ("topk", [0], "positive"),
        ("nproc", 2, "several processes"),
        ("world_size", 2, "several processes"),
        ("local_rank", 0, "several processes"),
        ("seed", -1, "2**32 - 1"),
        ("metrics", [1], "metrics' names"),
        ("metrics", [], "at least one"),
        ("topk", ["a"], "positive whole numbers"),
        ("topk", [], "positive whole numbers"),
        ("topk", [10, True], "positive whole numbers"),
        ("state", "LOUD", "debug, info, warning, error or critical"),
        ("learning_rate", float("nan"), "a finite number above 0"),
        ("learning_rate", float("inf"), "a finite number above 0"),
        ("weight_decay", -1.0, "not negative"),
        ("clip_grad_norm", 5, "{max_norm: 5}"),
        ("clip_grad_norm", {"norm_type": 2}, "{max_norm: 5}"),
        ("learner", "adamm", "did you mean adam?"),
        ("load_col", {"inter": ["user_id"]}, "user_id and item_id"),
        ("load_col", {"item": ["item_id"]}, "user_id and item_id"),
        ("unload_col", {"inter": ["item_id"]}, "user_id and item_id"),
        ("load_col", [1], "keys and values"),
        ("eval_args", {"group_by": "item"}, "user or none"),
        ("eval_args", {"order": "random"}, "RO (random)"),
        ("eval_args", {"split": {"RS": [0.8, 0.2]}}, "three shares"),
        ("eval_args", {"split": {"LS": "last"}}, "valid_and_test"),
        ("eval_args", {"mode": "uni"}, "uniN"),
        ("eval_args", {"mode": {"valid": "ful"}}, "uniN"),
        ("train_neg_sample_args", {"distribution": "uniformly"}, "popularity"),
        ("train_neg_sample_args", {"sample_num": 0}, "at least 1"),
        ("train_neg_sample_args", {"sample_num": 1.5}, "at least 1"),
        ("train_neg_sample_args", {"dynamic": 1}, "true or false"),
        ("train_neg_sample_args", {"candidate_num": -1}, "at least 0"),
        ("train_neg_sample_args", {"alpha": "1"}, "a number"),
        ("metrics", ["Recal"], "did you mean Recall?"),
        ("learning_rate", 1e39, "at most 1e30"),
        ("learner", "sparse_adam", "adam, adamw, sgd, adagrad or rmsprop"),
        ("threshold", [1], "keys and values"),
        ("val_interval", 5, "keys and values"),
        ("discretization", 5, "keys and values"),
        ("preload_weight", "abc", "keys and values"),
        ("alias_of_user_id", "friend", "a list of names"),
        ("normalize_all", "abc", "true or false"),
        ("device", "abc", "use_gpu: false"),
        ("MODEL_TYPE", 5, "unknown key"),
    ],
)
def test_wrong_values_are_told_in_one_line(key: str, value: Any, told: str) -> None:
    message = refused("BPR", "toy", overrides={key: value})
    assert key in message or told in message
    assert told in message


@pytest.mark.parametrize(
    ("key", "value", "named", "near"),
    [
        ("eval_args", {"spilt": {"RS": [0.8, 0.1, 0.1]}}, "eval_args.spilt", "split"),
        ("eval_args", {"groupby": "user"}, "eval_args.groupby", "group_by"),
        ("eval_args", {"mode": {"validation": "full"}}, "eval_args.mode.validation", "valid"),
        ("eval_args", {"split": {"rs": [0.8, 0.1, 0.1]}}, "eval_args.split.rs", "RS"),
        ("train_neg_sample_args", {"sample_number": 2}, "train_neg_sample_args.sample_number", "sample_num"),
        ("clip_grad_norm", {"max_norms": 5}, "clip_grad_norm.max_norms", "max_norm"),
    ],
)
def test_unknown_keys_inside_others_are_told_too(key: str, value: Any, named: str, near: str, tmp_path: Path) -> None:
    message = refused("BPR", "toy", overrides={key: value})
    assert f"unknown key '{named}' in the command line" in message and f"did you mean {near}" in message
    file = write(tmp_path / "inner.yaml", yaml.safe_dump({key: value}))
    assert str(file) in refused("BPR", "toy", [file])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eval_args", {"mode": "uni100"}),
        ("eval_args", {"mode": {"valid": "pop50", "test": "full"}}),
        ("eval_args", {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user"}),
        ("eval_args", {"group_by": None}),
        ("train_neg_sample_args", None),
        ("train_neg_sample_args", {"distribution": "popularity", "alpha": 0.5, "sample_num": 4}),
        ("train_neg_sample_args", {"dynamic": True, "candidate_num": 4}),
        ("clip_grad_norm", {"max_norm": 5, "norm_type": 2}),
        ("load_col", {"inter": ["user_id", "item_id"]}),
        ("load_col", None),
        ("topk", 10),
        ("metrics", "Recall"),
        ("learner", "AdamW"),
        ("state", "warning"),
        ("nproc", 1),
    ],
)
def test_what_recbole_offers_is_taken(key: str, value: Any) -> None:
    assert Config("BPR", "toy", overrides={key: value, "valid_metric": "Recall@10"}).model == "BPR"


@pytest.mark.parametrize("model", ["BM3", "SLMRec", "CLCRec", "ContentKNN"])
def test_models_without_negatives_get_none(model: str) -> None:
    """They would read RecBole's sampled rows, of label 0, as interactions."""
    for given in ({"distribution": "popularity"}, {"sample_num": 2}):
        message = refused(model, "toy", overrides={"train_neg_sample_args": given})
        assert f"{model} samples no negatives; leave it out for this model" in message and "the command line" in message
    for none in (None, {"distribution": None}):
        assert Config(model, "toy", config_dict={"train_neg_sample_args": none}).model == model


@pytest.mark.parametrize("model", ["DiffMM", "MGCN", "VBPR"])
def test_models_with_negatives_get_some(model: str) -> None:
    message = refused(model, "toy", config_dict={"train_neg_sample_args": None})
    assert f"{model} compares interactions with negatives" in message
    assert message.endswith("or give it {distribution: uniform, sample_num: 1}")
    given = {"distribution": "popularity", "alpha": 0.5}
    assert Config(model, "toy", config_dict={"train_neg_sample_args": given}).model == model


def test_a_key_that_a_model_does_not_read_is_unknown_to_it() -> None:
    for key in ("reg_weight", "loss_type", "neg_sampling", "training_neg_sample_num", "single_spec"):
        assert f"unknown key '{key}'" in refused("BPR", "toy", overrides={key: 1})
    assert Config("LightGCN", "toy", overrides={"reg_weight": 1e-3})["reg_weight"] == 1e-3
    assert Config("EASE", "toy", overrides={"reg_weight": 5})["reg_weight"] == 5


@pytest.mark.parametrize(
    ("typo", "near"), [("batch_size", "eval_batch_size"), ("regw", "reg_weight"), ("epoch_num", "epochs")]
)
def test_a_remote_likeness_is_named_as_well(typo: str, near: str) -> None:
    assert f"did you mean {near}" in refused("LightGCN", "toy", overrides={typo: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", "five"),
        ("steps", True),
        ("temperature", "0.5"),
        ("contrast", "both"),
        ("denoiser_hidden_sizes", [0]),
        ("use_generated_graph", 1),
        ("steps", 5.0),
        ("denoiser_hidden_sizes", ["16"]),
        ("sampling_noise", "yes"),
        ("cl_weight", True),
    ],
)
def test_a_models_own_keys_are_typed(key: str, value: Any) -> None:
    message = refused("DiffMM", "toy", overrides={key: value})
    assert key in message and "the command line" in message


def test_a_key_that_is_no_text_is_told() -> None:
    keys: Any = {1: 2}
    assert "unknown key '1'" in refused("BPR", "toy", config_dict=keys)


def test_a_whole_number_is_good_for_a_weight() -> None:
    config: Any = Config("DiffMM", "toy", overrides={"cl_weight": 1, "temperature": 2})
    assert config.model_class.config_class.from_config(config).temperature == 2.0


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such file" in refused("BPR", "toy", [tmp_path / "missing.yaml"])
    assert "line 3" in refused("BPR", "toy", [write(tmp_path / "broken.yaml", "epochs: 1\ntopk: [1\n")])
    assert "key: value" in refused("BPR", "toy", [write(tmp_path / "list.yaml", "- epochs\n")])
    twice = write(tmp_path / "twice.yaml", "epochs: 1\ntopk: [1]\nepochs: 2\n")
    assert "twice.yaml, line 3: not valid YAML ('epochs' is given twice)" in refused("BPR", "toy", [twice])
    unsafe = write(tmp_path / "unsafe.yaml", "log_dir: !!python/object/apply:os.getcwd []\n")
    assert "not valid YAML" in refused("BPR", "toy", [unsafe])
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused("BPR", "toy", [binary])
    assert Config("BPR", "toy", [write(tmp_path / "empty.yaml", "")])["epochs"] == 300


def test_an_unknown_dataset_names_the_nearest() -> None:
    assert "did you mean toy" in refused("BPR", "toyy")
    assert "dataset/README.md" in refused("DiffMM", "tiktok")


def test_models_of_other_kinds_are_refused() -> None:
    from recbole.model.sequential_recommender import GRU4Rec

    assert "no general recommender" in refused(GRU4Rec, "toy")


# What is settled later ---------------------------------------------------------------------------------------------


def test_evaluation_batches_are_given_in_users() -> None:
    config = Config("BPR", "toy", overrides={"eval_users_per_batch": 10})
    config.settle(81)
    assert config["eval_batch_size"] == 810
    explicit = Config("BPR", "toy", overrides={"eval_batch_size": 123})
    explicit.settle(81)
    assert explicit["eval_batch_size"] == 123
    pairs = Config("NeuMF", "toy", overrides={"eval_pairs_per_batch": 500})
    pairs.settle(81)
    assert pairs["eval_batch_size"] == 500


def test_a_cut_off_larger_than_the_catalogue_is_refused() -> None:
    config = Config("BPR", "toy", overrides={"topk": [20, 81]})
    with pytest.raises(UserError, match="asks for 81 items, toy has 80"):
        config.settle(81)
    config.settle(82)


@pytest.mark.parametrize("model", ["BPR", "DiffMM", "EASE"])
def test_plain_values_survive_a_checkpoint(model: str) -> None:
    config = Config(model, "toy", overrides={"epochs": 3, "topk": [5, 20]})
    config.settle(81)
    restored = Config.from_plain(json.loads(json.dumps(config.plain())))
    assert restored.plain() == config.plain()
    assert restored.final_config_dict == config.final_config_dict
    assert restored.model_class is config.model_class
    assert type(config_from_plain(plain_config(config))) is Config


def test_published_settings_are_known() -> None:
    for file in sorted((properties_dir() / "published").glob("*.yaml")):
        model = file.stem.split("-")[0]
        config = Config(model, "toy", [file])
        for key, value in yaml.safe_load(file.read_text(encoding="utf-8")).items():
            assert config[key] == pytest.approx(value) if isinstance(value, float) else config[key] == value


@pytest.mark.parametrize("model", registry.own_model_names())
def test_every_model_of_ours_is_configured(model: str) -> None:
    config = Config(model, "toy")
    settings: Any = config.model_class.config_class  # type: ignore[attr-defined]
    parsed = settings.from_config(config)
    with pytest.raises(Exception, match="frozen"):
        setattr(parsed, next(iter(settings.model_fields)), 1)
    assert all(field.description for field in settings.model_fields.values())


def test_a_gpu_scores_more_users_at_once_unless_a_number_is_asked_for_or_the_catalogue_is_large(tmp_path: Path):
    def users(n_items, **asked):
        config = Config("BPR", "toy", config_dict=asked)
        config.final_config_dict["device"] = torch.device("cuda")
        config.settle(n_items)
        return config["eval_batch_size"] // n_items

    assert users(1_000) == 2048
    assert users(1_000, eval_users_per_batch=32) == 32
    assert users(1_000, eval_users_per_batch=256) == 256
    write(tmp_path / "properties" / "overall.yaml", "eval_users_per_batch: 64\n")
    assert users(1_000) == 64
    (tmp_path / "properties" / "overall.yaml").unlink()
    assert users(200_000) == 2**27 // 200_000
    assert users(10_000_000) == 256
