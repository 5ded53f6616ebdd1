"""Ranges: our YAML and RecBole's lines mean the same, and whatever cannot be read is told in one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from recbole_diffmm.errors import UserError
from recbole_diffmm.tuning.space import Range, load_space

_LINES = """# A comment, and an empty line after it.

learning_rate loguniform -8,-4
reg_weight uniform 0.5, 2.5
embedding_size quniform 8,64,8
odd quniform 1,10,4
dropout quniform 0.1,0.9,0.25
n_layers choice [1, 2,3]
train_batch_size\tchoice [512,1024]
mlp_hidden_size choice ['[64,32]','[128]']
loss choice ['BPR', 'CE', 'True', '1e-3']
"""


def _load(text: str, name: str = "space.txt") -> dict[str, Range]:
    Path(name).write_text(text, encoding="utf-8")
    return load_space("BPR", Path(name))[0]


def test_yaml_ranges():
    space = _load(
        "a: [1, 2.5, x]\n"
        "b: {low: 1, high: 4}\n"
        "c: {low: 1e-4, high: 1e-2, log: true}\n"
        "d: {low: 0, high: 1, step: 0.25}\n"
        "e: loguniform -8,-4\n"
        "f: {low: 2, high: 10, step: 4}\n",
        "space.yaml",
    )
    assert space == {
        "a": Range(kind="choice", values=(1, 2.5, "x")),
        "b": Range(kind="int", low=1, high=4),
        "c": Range(kind="float", low=1e-4, high=1e-2, log=True),
        "d": Range(kind="float", low=0, high=1, step=0.25),
        "e": Range(kind="float", low=math.exp(-8), high=math.exp(-4), log=True),
        "f": Range(kind="int", low=2, high=10, step=4),
    }


def test_one_modality_has_a_share_and_the_others_part_the_rest():
    Path("space.yaml").write_text("w: {share_of_one: [0.7, 1.0]}\n", encoding="utf-8")
    (two,) = load_space("FREEDOM", Path("space.yaml"), ["look", "smell"])[0].values()
    assert two.values == (
        None,
        {"look": 0.7, "smell": 0.3},
        {"look": 1.0, "smell": 0.0},
        {"look": 0.3, "smell": 0.7},
        {"look": 0.0, "smell": 1.0},
    )
    (three,) = load_space("FREEDOM", Path("space.yaml"), ["look", "smell", "sound"])[0].values()
    assert len(three.values) == 7 and three.values[1] == {"look": 0.7, "smell": 0.15, "sound": 0.15}
    for names in (["look"], []):
        assert load_space("FREEDOM", Path("space.yaml"), names)[0]["w"].values == (None,), "nothing to weigh"
    assert len({two.encode(value) for value in two.values}) == 5 and all(two.encode(value) for value in two.values)
    assert [two.decode(two.encode(value)) for value in two.values] == list(two.values)
    for shares in ("0.7", "[]", "[1.5]", "[0.0]", "[true]", "[x]", "[0.7], low: 1"):
        with pytest.raises(UserError, match=r"^w in space.yaml: cannot read .*; write \{share_of_one: \[0.7, 0.9\]\}$"):
            _load(f"w: {{share_of_one: {shares}}}\n", "space.yaml")
    with pytest.raises(UserError, match=r"unknown key 'share_of_all'; did you mean share_of_one\?; write .*0.9\]\}$"):
        _load("w: {share_of_all: [0.7]}\n", "space.yaml")


def test_recboles_lines_mean_what_they_mean_to_recbole():
    pytest.importorskip("hyperopt", reason="RecBole's own tuning stands on it; it comes with the extra `test`")
    from hyperopt.pyll.stochastic import sample
    from recbole.trainer.hyper_tuning import HyperTuning

    ours = _load(_LINES)
    Path("recbole.txt").write_text(_LINES.partition("\n\n")[2].replace("\t", " "), encoding="utf-8")
    theirs = HyperTuning._build_space_from_file("recbole.txt")
    assert list(ours) == list(theirs)
    random = np.random.default_rng(0)
    for name, mine in ours.items():
        drawn = [sample(theirs[name], random) for _ in range(150)]
        if mine.kind == "choice":
            # What RecBole's configuration makes of a text.
            read = [eval(x) if x in {"[64,32]", "[128]", "True", "1e-3"} else x for x in drawn]  # noqa: S307
            assert {repr(x) for x in read} == {repr(x) for x in mine.values}
        elif mine.step is not None:
            steps = round((mine.high - mine.low) / mine.step)
            assert {round(x, 9) for x in drawn} == {round(mine.low + i * mine.step, 9) for i in range(steps + 1)}
        else:
            assert mine.low <= min(drawn) and max(drawn) <= mine.high
            middle = math.sqrt(mine.low * mine.high) if mine.log else (mine.low + mine.high) / 2
            assert 0.4 < np.mean(np.array(drawn) < middle) < 0.6
    assert ours["embedding_size"].kind == "int"  # Hyperopt gives 8.0, which is no embedding's size


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 0.1", "a in space.yaml: cannot read 0.1 as a range"),
        ("a:", "a in space.yaml: cannot read None as a range"),
        ("a: true", "a in space.yaml: cannot read True as a range"),
        ("a: []", "a in space.yaml: there is nothing to choose from"),
        ("a: {low: 4, high: 1}", "a in space.yaml: low must be less than high, got 4 and 1"),
        ("a: {low: 1, high: .nan}", "a in space.yaml: low must be less than high, got 1 and nan"),
        ("a: {low: 1, high: .inf}", "a in space.yaml: low must be less than high, got 1 and inf"),
        ("a: {low: 1}", "a in space.yaml: high is missing"),
        ("a: {high: 1}", "a in space.yaml: low is missing"),
        ("a: {low: x, high: 1}", "a in space.yaml: Input should be a valid number"),
        ("a: {low: 1, hgih: 4}", "a in space.yaml: unknown key 'hgih'; did you mean high?"),
        ("a: {low: 0, high: 1, log: true}", "a in space.yaml: log needs a low above 0 and no step"),
        ("a: {low: 1, high: 4, step: 1, log: true}", "a in space.yaml: log needs a low above 0 and no step"),
        ("a: {low: 1, high: 4, step: 0}", "a in space.yaml: step must be more than 0, got 0"),
        ("", "space.yaml has no setting to search"),
        ("a: [", "config file space.yaml, line 2: not valid YAML"),
    ],
)
def test_a_wrong_yaml_range_is_told_in_one_line(text: str, line: str):
    with pytest.raises(UserError) as error:
        _load(text + "\n", "space.yaml")
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "range_",
    [
        "",
        "normal 0,1",
        "choice",
        "choice 1",
        "choice [1,",
        "choice []",
        "choice [__import__('os').getcwd()]x",
        "uniform 0",
        "uniform 0,1,2",
        "uniform a,b",
        "uniform 1,0",
        "loguniform -4,-8",
        "loguniform 0,1000",
        "quniform 8,64",
        "quniform 8,64,0",
        "quniform 1,inf,2",
        "quniform 64,8,8",
    ],
)
def test_a_wrong_line_of_recboles_is_told_in_one_line(range_: str):
    with pytest.raises(UserError) as error:
        _load(f"learning_rate {range_}\n")
    assert str(error.value).startswith("learning_rate in space.txt: ") and "\n" not in str(error.value)


def test_no_code_runs_when_a_line_is_read():
    space = _load("a choice [__import__('pathlib').Path('ran').touch(), 1]\n")
    assert not Path("ran").exists() and space["a"].kind == "choice"


def test_a_missing_space_is_told_in_one_line():
    with pytest.raises(UserError, match=r"no properties/tune/Pop.yaml; write one, or give --space FILE"):
        load_space("Pop")
    with pytest.raises(UserError, match=r"search space nosuch.txt cannot be read"):
        load_space("BPR", Path("nosuch.txt"))
    with pytest.raises(UserError, match=r"config file nosuch.yaml: no such file"):
        load_space("BPR", Path("nosuch.yaml"))
    Path("properties/tune").mkdir(parents=True)
    Path("properties/tune/Pop.yaml").write_text("a: [1, 2]\n", encoding="utf-8")
    assert load_space("Pop") == ({"a": Range(kind="choice", values=(1, 2))}, "Pop.yaml")


@pytest.mark.parametrize(
    ("range_", "settings", "foreign"),
    [
        (Range(kind="choice", values=(1, 2.5, "x", None, True)), [1, 2.5, "x", None], [3, "y", [1]]),
        (Range(kind="choice", values=([64, 32], [128], 7)), [[64, 32], [128], 7], [[64], "[64, 32]"]),
        (Range(kind="int", low=1, high=4), [1, 4, 2.0], [2.5, True, None, "2"]),
        (Range(kind="int", low=2, high=10, step=4), [2, 6, 10], [4]),
        (Range(kind="float", low=1e-4, high=1e-2, log=True), [1e-4, 1e-3, 1e-2], [None, "1e-3"]),
        (Range(kind="float", low=0, high=1, step=0.1), [0, 0.3, 0.7, 1], [0.05]),
    ],
)
def test_settings_become_optunas_parameters_and_come_back(range_: Range, settings: list[Any], foreign: list[Any]):
    for setting in settings:
        parameter = range_.encode(setting)
        assert range_.decode(parameter) == setting
        # What a queued trial is given, the drawing returns.
        assert range_.draw("x", optuna.trial.FixedTrial({"x": parameter})) == setting
        assert Range.model_validate(range_.model_dump(mode="json")).decode(parameter) == setting
    assert [range_.encode(setting) for setting in foreign] == [None] * len(foreign)


def test_a_number_beyond_a_range_becomes_its_nearest_end():
    assert Range(kind="float", low=1e-8, high=1e-3, log=True).encode(0.0) == 1e-8
    assert Range(kind="float", low=1e-8, high=1e-3, log=True).encode(1) == 1e-3
    assert Range(kind="int", low=2, high=10, step=4).encode(14) == 10


def test_drawn_values_lie_in_their_range():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = _load(_LINES)
    for _ in range(30):
        trial = study.ask()
        drawn = {name: range_.draw(name, trial) for name, range_ in space.items()}
        assert all(space[name].encode(value) is not None for name, value in drawn.items())
        assert isinstance(drawn["embedding_size"], int) and drawn["mlp_hidden_size"] in ([64, 32], [128])
        assert {name: space[name].decode(value) for name, value in trial.params.items()} == drawn
