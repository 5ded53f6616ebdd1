"""Every mend does what it says, on the stack that is installed."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from recbole_diffmm import compat, registry, run
from recbole_diffmm.config import Config

QUICK = {"epochs": 1, "show_progress": False, "state": "ERROR"}


def splits(model: str, **settings: Any) -> tuple[Config, Any]:
    from recbole_diffmm.quick_start import load_splits

    config = Config(model, "toy", overrides={**QUICK, **settings})
    return config, load_splits(config, registry.create_dataset(config))[0]._dataset


def test_every_mend_names_its_defect_and_says_whether_it_acted() -> None:
    report = compat.apply()
    assert [mend.name for mend in report] == list(compat.MENDS)
    for mend in report:
        assert mend.defect.endswith(".") and mend.upstream and mend.why
        documented = compat.MENDS[mend.name].__doc__ or ""
        assert any(words in documented for words in ("Does nothing", "Always acts", "Changes nothing unless"))
    assert compat.apply() == report


def test_the_package_imports_without_ray_and_leaves_none_behind(repository: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = None; import recbole_diffmm; from recbole.quick_start import run_recbole; "
        "assert sys.modules['ray'] is None and 'ray.tune' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, env={**os.environ, "PYTHONPATH": str(repository)}
    )


@pytest.mark.parametrize("version", ["1.2.0", None])
def test_another_recbole_is_refused_with_the_one_command(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(_: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    with pytest.raises(ImportError, match=r"pip install --no-deps recbole==1\.2\.1") as caught:
        compat.require_recbole()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [("2.13.0+cpu", (2, 6), True), ("2.5.1", (2, 6), False), ("3.0.0rc1", (3,), True), ("1.26.4", (2,), False)],
)
def test_versions_are_compared_by_number(version: str, wanted: tuple[int, ...], expected: bool) -> None:
    assert compat._at_least(version, *wanted) is expected


GRAPHS = {
    "LightGCN": "norm_adj_matrix",
    "NGCF": "norm_adj_matrix",
    "SpectralCF": "A_hat",
    "NCL": "norm_adj_mat",
    "GCMC": "Graph",
}


@pytest.mark.parametrize("model", GRAPHS)
def test_graphs_have_as_many_edges_as_the_training_data(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if model == "NCL":  # a run asks for faiss first; the graph is built without it
        monkeypatch.setattr(registry, "require_extras", lambda config: None)
    config, train = splits(model)
    users, items = (train.inter_feat[name].numpy() for name in (train.uid_field, train.iid_field))
    pairs = len(set(zip(users.tolist(), items.tolist(), strict=True)))
    graph = getattr(registry.get_model(model)(config, train), GRAPHS[model])
    entries = graph.coalesce().indices()
    off_diagonal = int((entries[0] != entries[1]).sum())
    if model == "SpectralCF":  # identity + D^-1 A
        off_diagonal = int(((entries[0] < train.user_num) != (entries[1] < train.user_num)).sum())
    assert pairs > 0
    assert off_diagonal == 2 * pairs
    if model == "LightGCN":
        degree_user, degree_item = np.bincount(users), np.bincount(items)
        weights = graph.coalesce().values().numpy()
        expected = (degree_user[users[0]] * degree_item[items[0]]) ** -0.5
        at = ((entries[0] == int(users[0])) & (entries[1] == int(items[0]) + train.user_num)).numpy()
        assert weights[at] == pytest.approx([expected], rel=1e-5)


@pytest.mark.skipif(hasattr(sp.dok_matrix, "_update"), reason="this SciPy still has dok_matrix._update")
def test_a_graph_that_lost_entries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = compat._FillableDokMatrix((4, 4), dtype=np.float32)
    matrix._update({(0, 1): 1, (2, 3): 1})
    assert matrix.nnz == 2 and matrix[2, 3] == 1
    monkeypatch.setattr(compat._FillableDokMatrix, "nnz", property(lambda self: 0))
    with pytest.raises(RuntimeError, match="2 entries was built with 0"):
        matrix._update({(0, 1): 1, (2, 3): 1})
    assert not hasattr(sp.dok_matrix, "_update"), "SciPy itself stays as it is"


def write_atomic(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = [f"u{user}\ti{(user + step) % 9}\t{user + step}.0" for user in range(9) for step in range(5)]
    (folder / "small.inter").write_text(
        "user_id:token\titem_id:token\trating:float\n" + "\n".join(rows) + "\n", encoding="utf-8"
    )
    items = ["i0\tred\ta b\t1.0 3.0\t2.0", "i1\t\t\t5.0\t", "i2\tblue\tb\t\t4.0"]
    (folder / "small.item").write_text(
        "item_id:token\tcolour:token\ttags:token_seq\tsize:float_seq\tprice:float\n" + "\n".join(items) + "\n",
        encoding="utf-8",
    )


def test_missing_side_features_are_filled(tmp_path: Path) -> None:
    write_atomic(tmp_path / "dataset" / "small")
    load = {"inter": ["user_id", "item_id", "rating"], "item": ["item_id", "colour", "tags", "size", "price"]}
    config = Config("BPR", "small", overrides={**QUICK, "topk": [2], "valid_metric": "Recall@2", "load_col": load})
    dataset = registry.create_dataset(config)
    dataset.build()
    features = dataset.get_item_feature()
    assert all(values.min() >= 0 for values in features.interaction.values()), "[PAD] and missing tokens are 0"
    ids = [dataset.token2id("item_id", f"i{item}") for item in range(3)]
    assert features["colour"][ids].tolist() == [1, 0, 2]
    assert features["price"][ids].tolist() == [2.0, 3.0, 4.0], "a missing number is the mean"
    assert features["tags"][ids].tolist() == [[1, 2], [0, 0], [2, 0]]
    assert features["size"][ids].tolist() == [[1.0, 3.0], [5.0, 0.0], [0.0, 0.0]]


def test_float_sequences_are_normalised(tmp_path: Path) -> None:
    write_atomic(tmp_path / "dataset" / "small")
    load = {"inter": ["user_id", "item_id"], "item": ["item_id", "size", "price"]}
    settings = {"topk": [2], "valid_metric": "Recall@2", "load_col": load, "normalize_field": ["size"]}
    dataset = registry.create_dataset(Config("BPR", "small", overrides={**QUICK, **settings}))
    dataset.build()
    features = dataset.get_item_feature()
    ids = [dataset.token2id("item_id", f"i{item}") for item in range(3)]
    assert features["size"][ids].tolist() == [[0.0, 0.5], [1.0, 0.0], [0.0, 0.0]]
    assert features["price"][ids].tolist() == [2.0, 3.0, 4.0], "not named, not touched"


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
@pytest.mark.parametrize("keep", ["first", "last"])
def test_repeated_pairs_at_one_time_keep_the_files_order(keep: str, tmp_path: Path) -> None:
    folder = tmp_path / "dataset" / "tied"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = [(f"u{generator.integers(40)}", f"i{generator.integers(30)}", generator.integers(5)) for _ in range(2000)]
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "tied.inter").write_text(header + "".join(f"{user}\t{item}\t{time}\n" for user, item, time in rows))
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    settings = {"data_path": str(folder.parent), "load_col": columns, "rm_dup_inter": keep}
    dataset = registry.create_dataset(Config("BPR", "tied", config_dict=settings))
    by_time = sorted(rows, key=lambda row: row[2])  # Python's sort is stable
    kept = dict.fromkeys(row[:2] for row in (by_time if keep == "first" else reversed(by_time)))
    expected = list(kept) if keep == "first" else list(kept)[::-1]
    users, items = (dataset.id2token(field, dataset.inter_feat[field]) for field in ("user_id", "item_id"))
    assert list(zip(users, items, strict=True)) == expected


def test_tensors_own_their_memory() -> None:
    _, train = splits("BPR")
    before = train.inter_feat[train.uid_field].clone()
    train.inter_feat[train.uid_field][0] += 1
    assert (train.inter_feat[train.uid_field] != before).sum() == 1


@pytest.mark.filterwarnings("ignore")
def test_metrics_of_coverage_and_popularity_are_computed() -> None:
    names = ["ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage", "ShannonEntropy", "Recall"]
    result = run("Pop", "toy", overrides={**QUICK, "metrics": names})
    assert {name.split("@")[0] for name in result.test} == {name.lower() for name in names}
    assert 0 < result.test["itemcoverage@20"] <= 1
    assert 0 <= result.test["giniindex@20"] <= 1


@pytest.mark.filterwarnings("ignore")
def test_nncf_finds_its_neighbours_by_knn() -> None:
    assert run("NNCF", "toy", overrides={**QUICK, "neigh_info_method": "knn"}).test


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["LightGCN", "NGCF", "SGL"])
def test_graph_models_run_in_mixed_precision(model: str) -> None:
    assert run(model, "toy", overrides={**QUICK, "enable_amp": True}).test


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["BPR", "EASE", "DMF", "ItemKNN"])
def test_stock_recbole_writes_plain_checkpoints_and_loads_them(model: str, tmp_path: Path) -> None:
    from recbole.quick_start import load_data_and_model, run_recbole

    from recbole_diffmm.data.bundled import prepare

    prepare("toy", tmp_path)
    settings = {"data_path": str(tmp_path), "benchmark_filename": ["train", "valid", "test"], **QUICK}
    result = run_recbole(model=model, dataset="toy", config_dict=settings)
    (checkpoint,) = Path("saved").glob("*.pth")
    assert torch.load(checkpoint, weights_only=True)["config"]["model"] == model
    config, network, _, _, _, test = load_data_and_model(str(checkpoint))
    assert not isinstance(config, Config), "RecBole's models keep RecBole's configuration under RecBole's functions"
    assert not network.training, "scores of a model that trains may be those of a graph drawn anew"
    from recbole.utils import get_trainer

    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]

    class Code:
        def __reduce__(self) -> Any:
            return os.system, ("touch ran",)

    for name in (f"toy-for-{model}-dataloader.pth", "toy-Dataset.pth"):
        (Path("saved") / name).write_bytes(pickle.dumps(Code()))
    assert load_data_and_model(str(checkpoint))[2].item_num == 81
    assert not Path("ran").exists(), "pickles beside a checkpoint are not read"


@pytest.mark.filterwarnings("ignore")
def test_loaders_that_lie_in_the_checkpoints_folder_are_not_unpickled(tmp_path: Path) -> None:
    from recbole.quick_start import run_recbole

    class Code:
        def __reduce__(self) -> Any:
            return os.system, ("touch ran",)

    Path("saved").mkdir()
    Path("saved/toy-for-LightGCNM-dataloader.pth").write_bytes(pickle.dumps(Code()))
    assert run_recbole(model="LightGCNM", dataset="toy", config_dict={"data_path": str(tmp_path), **QUICK})
    assert not Path("ran").exists()


def test_ldiffrecs_file_of_item_embeddings_holds_numbers(tmp_path: Path) -> None:
    from recbole.model.general_recommender import ldiffrec

    np.save(tmp_path / "numbers.npy", np.arange(3.0))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert ldiffrec.np.load(tmp_path / "numbers.npy", allow_pickle=True).tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="allow_pickle=False"):
        ldiffrec.np.load(tmp_path / "objects.npy", allow_pickle=True)


@pytest.mark.filterwarnings("ignore")
def test_pretrained_parts_are_read(tmp_path: Path) -> None:
    run("NeuMF", "toy", overrides={**QUICK, "mlp_train": False})
    run("NeuMF", "toy", overrides={**QUICK, "mf_train": False, "seed": 1})
    paths = sorted(Path("saved").glob("NeuMF-*.pth"), key=lambda path: path.name)
    assert len(paths) == 2
    by_part = {torch.load(path, weights_only=True)["config"]["mf_train"]: str(path) for path in paths}
    settings = {"use_pretrain": True, "mf_pretrain_path": by_part[True], "mlp_pretrain_path": by_part[False]}
    assert run("NeuMF", "toy", overrides={**QUICK, **settings}).test


def test_numpy_names_are_there_after_a_configuration() -> None:
    Config("BPR", "toy")
    assert np.float is np.float64 or np.float is float  # type: ignore[attr-defined]  # noqa: NPY001
    assert not hasattr(pd, "float")


@pytest.mark.filterwarnings("ignore")
def test_exhaustive_tuning_tries_every_value(tmp_path: Path) -> None:
    pytest.importorskip("hyperopt", reason="hyperopt is optional in RecBole; the extra test brings it")
    assert {mend.name: mend.acted for mend in compat.apply()}["hyperopt_generators"]
    from recbole.quick_start import objective_function
    from recbole.trainer import HyperTuning

    fixed = tmp_path / "fixed.yaml"
    fixed.write_text(
        f"model: DiffMM\ndataset: toy\nepochs: 1\nshow_progress: false\nstate: ERROR\ndata_path: {tmp_path}\n",
        encoding="utf-8",
    )
    tuning = HyperTuning(
        objective_function,
        params_dict={"choice": {"learning_rate": [0.01, 0.001]}},
        fixed_config_file_list=[str(fixed)],
        algo="exhaustive",
    )
    tuning.run()
    assert len(tuning.params2result) == 2


@pytest.mark.parametrize("batch_size", [4, 1024])
def test_pop_counts_the_interactions_whatever_the_batch_and_the_negatives(batch_size: int) -> None:
    from recbole_diffmm.quick_start import load_splits

    config = Config("Pop", "toy", overrides={**QUICK, "train_batch_size": batch_size})
    train, _, _ = load_splits(config, registry.create_dataset(config))
    model = config.model_class(config, train._dataset)
    for batch in train:
        model.calculate_loss(batch)
    counts = torch.bincount(train._dataset.inter_feat["item_id"].long(), minlength=model.n_items)
    assert torch.equal(model.item_cnt.squeeze(1), counts)
    assert model.max_cnt.item() == counts.max()


def test_every_mend_is_reported_once() -> None:
    code = (
        "import recbole_diffmm; from recbole.config import Config; from recbole_diffmm import compat; "
        "names = [mend.name for mend in compat.apply()]; assert names == list(compat.MENDS), names"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
