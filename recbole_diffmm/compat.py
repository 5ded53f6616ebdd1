"""RecBole 1.2.1 on current NumPy, SciPy, PyTorch and pandas, mended from outside.

Each mend is one function that names the defect, where upstream knows of it, and when it does nothing. A mend changes
names inside RecBole's own modules (a proxy for `torch` in the module that loads checkpoints, a subclass of SciPy's
matrix in the modules that build graphs); NumPy, SciPy, PyTorch and pandas themselves stay as they are for the rest of
the process, apart from the NumPy aliases that RecBole sets on every `Config` anyway.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from recbole_diffmm.on_import import require_recbole


@dataclass(frozen=True)
class Mend:
    """One defect and what was done about it: `name`, `defect`, `upstream`, whether it `acted`, and `why` (not)."""

    name: str
    defect: str
    upstream: str
    acted: bool
    why: str


_report: list[Mend] = []
_applying = False


def apply() -> list[Mend]:
    """Mend RecBole once per process and return what was found; later calls return the same report.

    Raises:
        RecBoleMissingError: RecBole is missing or is not version 1.2.1.
    """
    global _applying
    if not _report and not _applying:
        _applying = True  # a mend imports what it mends, and RecBole's first import comes here again
        try:
            require_recbole()
            for name, mend in MENDS.items():
                acted, why = mend()
                defect, upstream = _described(mend)
                _report.append(Mend(name, defect, upstream, acted, why))
        finally:
            _applying = False
    return list(_report)


def _described(mend: Callable[[], tuple[bool, str]]) -> tuple[str, str]:
    """The first sentence of a mend's docstring and its `Upstream:` line."""
    lines = [line.strip() for line in (mend.__doc__ or "").splitlines()]
    upstream = next((line.removeprefix("Upstream:").strip() for line in lines if line.startswith("Upstream:")), "")
    return lines[0], upstream


def _at_least(version: str, *wanted: int) -> bool:
    """Whether a version such as "2.13.0+cpu" is at least `wanted`, compared number by number."""
    numbers = []
    for part in version.split("+")[0].split(".")[: len(wanted)]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers) >= wanted


def _module(name: str) -> Any:
    """One of RecBole's modules, as something whose names may be replaced."""
    return importlib.import_module(f"recbole.{name}")


class _Proxy(ModuleType):
    """A module as one of RecBole's modules sees it: everything of `module`, apart from the given names."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__["_proxied"] = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_proxied"], name)


# --- A1: ray -----------------------------------------------------------------------------------------------------


def ray_at_import() -> tuple[bool, str]:
    """`recbole.quick_start` imports ray, whose pinned version has no build for Python 3.12+ and breaks on NumPy 2.

    Upstream: RecBole#1518, #1820, #2055, PR#2187
    Does nothing where `recbole.quick_start` or `ray.tune` is already imported.
    """
    if "recbole.quick_start.quick_start" in sys.modules:
        return False, "recbole.quick_start was imported before recbole_diffmm"
    if "ray.tune" in sys.modules:
        return False, "ray is imported already"
    with _stand_ins(_ray_stand_in()):
        importlib.import_module("recbole.quick_start.quick_start")
    return True, "ray is not needed to import RecBole"


def _ray_stand_in() -> dict[str, ModuleType]:
    ray, tune = ModuleType("ray"), ModuleType("ray.tune")

    def report(**metrics: float) -> None:
        """Pass the metrics on where this process is a worker of the real ray, else do nothing."""
        real = sys.modules.get("ray.tune")
        if real is None:
            return
        try:
            real.report(metrics)  # ray >= 2.7 takes one dict
        except TypeError:
            real.report(**metrics)

    tune.report = report  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    return {"ray": ray, "ray.tune": tune}


@contextmanager
def _stand_ins(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Let imports find `modules`, and nothing afterwards: a later `import ray` must get the real one."""
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(before)


# --- A2: NumPy names ---------------------------------------------------------------------------------------------


def numpy_names() -> tuple[bool, str]:
    """`Config` reads `np.float_`, `np.complex_` and `np.unicode_`, which NumPy 2 has not.

    Upstream: RecBole#1604, #1617, #1714, PR#2078, PR#2203
    Does nothing with NumPy 1.
    """
    if not _at_least(np.__version__, 2):
        return False, f"NumPy {np.__version__} still has the names"
    from recbole.config.configurator import Config
    from recbole.trainer import hyper_tuning

    aliases = {
        "bool": np.bool_,
        "int": np.int_,
        "float": np.float64,
        "complex": np.complex128,
        "object": np.object_,
        "str": np.str_,
        "long": np.int_,
        "unicode": np.str_,
    }

    def compatibility_settings(self: Any) -> None:
        for name, value in aliases.items():
            if name not in vars(np):
                setattr(np, name, value)

    Config.compatibility_settings = compatibility_settings
    # Tuning reads `np.str` before any Config is made in a process that only plots.
    hyper_tuning.np = _Proxy(np, str=np.str_)
    return True, f"NumPy {np.__version__}"


# --- A3: checkpoints ---------------------------------------------------------------------------------------------

_PRETRAINED_READERS = ("convncf", "nais", "neumf", "ract")


def plain_checkpoints() -> tuple[bool, str]:
    """RecBole's checkpoints pickle a Config object, which `torch.load` refuses since PyTorch 2.6.

    Upstream: RecBole#2212, PR#2187
    Always acts: the checkpoints of RecBole's trainers then hold tensors and plain values only and are read with
    `weights_only=True` on every PyTorch, and so are the pre-trained files of ConvNCF, NAIS, NeuMF and RaCT. LDiffRec's
    file of item embeddings is read as an array of numbers.
    """
    trainer = _module("trainer.trainer")
    trainer.torch = _Proxy(torch, load=read_checkpoint, save=write_checkpoint)
    for name in _PRETRAINED_READERS:
        _module(f"model.general_recommender.{name}").torch = _Proxy(torch, load=read_checkpoint)
    _module("model.general_recommender.ldiffrec").np = _Proxy(np, load=_load_numbers)
    for name in ("quick_start", "quick_start.quick_start"):
        _module(name).load_data_and_model = load_data_and_model
    return True, f"PyTorch {torch.__version__}"


def _load_numbers(path: str, **_: Any) -> Any:
    return np.load(path, allow_pickle=False)


def write_checkpoint(state: Mapping[str, Any], path: str | Path, **_: Any) -> None:
    """Write what a RecBole trainer keeps, its Config and other parameters turned into tensors and plain values."""
    from recbole_diffmm.config import plain_config
    from recbole_diffmm.trainer import checkpoint

    plain = dict(state)
    if "config" in plain:
        plain["config"] = plain_config(plain["config"])
    if plain.get("other_parameter"):
        # A module kept as "other parameter" is in the state_dict already.
        parameters = plain["other_parameter"].items()
        plain["other_parameter"] = {key: value for key, value in parameters if not isinstance(value, torch.nn.Module)}
    checkpoint.save(path, plain)


def read_checkpoint(path: str | Path, map_location: Any = None, **_: Any) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, onto `map_location` (default: the CPU)."""
    from recbole_diffmm.trainer import checkpoint

    return checkpoint.load(path, map_location="cpu" if map_location is None else map_location)


def load_data_and_model(model_file: str | Path) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Return (config, model, dataset, train, valid, test) of a checkpoint, as RecBole's function of this name does.

    The model is in evaluation mode, for scores of one that trains may be those of a drawn graph.
    A pickled dataset or pickled loaders in `checkpoint_dir` are not read, which RecBole's function does: they are made
    again from the data.
    """
    from logging import getLogger

    from recbole.data import data_preparation
    from recbole.utils import get_model, init_logger, init_seed

    from recbole_diffmm import registry
    from recbole_diffmm.config import config_from_plain

    state = read_checkpoint(model_file)
    config = config_from_plain(state["config"])
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    getLogger().info(config)
    with _no_saved_data():
        dataset = registry.create_dataset(config)
        loaders = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, loaders[0]._dataset).to(config["device"])
    state = read_checkpoint(model_file, map_location=config["device"])
    model.load_state_dict(state["state_dict"])
    model.load_other_parameter(state.get("other_parameter"))
    return (config, model.eval(), dataset, *loaders)


@contextmanager
def _no_saved_data() -> Iterator[None]:
    """Let RecBole find no dataset or loaders that an earlier run pickled."""
    data_utils = _module("data.utils")
    data_utils.os = _Proxy(os, path=_Proxy(os.path, exists=lambda path: False))
    try:
        yield
    finally:
        data_utils.os = os


# --- A4: graphs --------------------------------------------------------------------------------------------------

_GRAPH_BUILDERS = (
    "general_recommender.lightgcn",
    "general_recommender.ngcf",
    "general_recommender.ncl",
    "general_recommender.gcmc",
    "general_recommender.spectralcf",
    "knowledge_aware_recommender.kgin",
    "knowledge_aware_recommender.mcclk",
)


class _FillableDokMatrix(sp.dok_matrix):  # type: ignore[misc]
    """SciPy's dictionary of keys with the private `_update` that RecBole's graph models fill it by."""

    def _update(self, entries: Mapping[tuple[int, int], float]) -> None:
        # SciPy's own `update` looks like the replacement, refuses keys in some versions and in others leaves the
        # matrix empty without a word; so the entries are set where SciPy keeps them, and counted.
        self._dict.update({(int(row), int(column)): self.dtype.type(value) for (row, column), value in entries.items()})
        if self.nnz < len(entries):
            raise RuntimeError(f"a graph of {len(entries)} entries was built with {self.nnz}")


def graph_entries() -> tuple[bool, str]:
    """LightGCN, NGCF, NCL, GCMC, SpectralCF, KGIN and MCCLK fill their graph by `dok_matrix._update`, gone in SciPy 1.13.

    Upstream: RecBole#2034, #2090, #2185
    Does nothing where `dok_matrix` has `_update`.
    """  # noqa: E501
    if hasattr(sp.dok_matrix, "_update"):
        return False, f"SciPy {importlib.metadata.version('scipy')} still has dok_matrix._update"
    for name in _GRAPH_BUILDERS:
        _module(f"model.{name}").sp = _Proxy(sp, dok_matrix=_FillableDokMatrix)
    return True, f"SciPy {importlib.metadata.version('scipy')}"


# --- A5, A6: pandas ----------------------------------------------------------------------------------------------


def pandas_copies() -> tuple[bool, str]:
    """Columns filled in place are copies under pandas 3, so [PAD] rows and missing tokens become -2**63, and `Series.agg(len)` is one number.

    Upstream: no thread known
    Does nothing with pandas before 2.2, which fills in place without a word; from then on it warns of every column.
    """  # noqa: E501
    if not _at_least(pd.__version__, 2, 2):
        return False, f"pandas {pd.__version__} fills in place"
    from recbole.data.dataset import dataset

    dataset.Dataset._fill_nan = _fill_nan
    if not _at_least(pd.__version__, 3):
        return True, f"pandas {pd.__version__} warns of every column"
    dataset.pd = _Proxy(pd, read_csv=_read_csv)
    # pandas 3 hands out read-only arrays, and a tensor made of one would share its memory.
    dataset.torch = _Proxy(torch, LongTensor=_owning(torch.LongTensor), FloatTensor=_owning(torch.FloatTensor))
    dataset.Dataset._remap = _remap
    dataset.Dataset._normalize = _normalize
    return True, f"pandas {pd.__version__}"


def _owning(tensor_type: Callable[[Any], torch.Tensor]) -> Callable[[Any], torch.Tensor]:
    def make(values: Any) -> torch.Tensor:
        read_only = isinstance(values, np.ndarray) and not values.flags.writeable
        return tensor_type(values.copy() if read_only else values)

    return make


def _read_csv(*args: Any, **kwargs: Any) -> pd.DataFrame:
    """Read an atomic file with the empty cells of its sequence columns as empty text, which RecBole then splits."""
    frame = pd.read_csv(*args, **kwargs)
    sequences = [name for name in frame.columns if str(name).endswith("_seq")]
    return frame.fillna(dict.fromkeys(sequences, "")) if sequences else frame


def _fill_nan(self: Any) -> None:
    """Fill missing tokens with 0 ([PAD]), missing floats with their mean and missing sequences with empty ones."""
    from recbole.utils import FeatureType

    for feat_name in self.feat_name_list:
        feat = getattr(self, feat_name)
        for field in feat:
            ftype = self.field2type[field]
            if ftype == FeatureType.TOKEN:
                feat[field] = feat[field].fillna(value=0)
            elif ftype == FeatureType.FLOAT:
                feat[field] = feat[field].fillna(value=feat[field].mean())
            else:
                empty = np.array([], dtype=np.int64 if ftype == FeatureType.TOKEN_SEQ else np.float64)
                feat[field] = pd.Series(
                    [empty if isinstance(cell, float) else cell for cell in feat[field]], feat.index
                )


def _lengths(column: pd.Series) -> np.ndarray:
    return np.fromiter((len(cell) for cell in column), dtype=np.int64, count=len(column))


def _remap(self: Any, remap_list: list[tuple[pd.DataFrame, str, Any]]) -> None:
    """Number the tokens of one vocabulary from 1 in order of appearance, 0 being [PAD]."""
    from recbole.utils import FeatureType

    if not remap_list:
        return
    tokens, bounds = self._concat_remaped_tokens(remap_list)
    numbers, vocabulary = pd.factorize(tokens)
    id_token = np.array(["[PAD]", *vocabulary])
    token_id = {token: index for index, token in enumerate(id_token)}
    for (feat, field, ftype), ids in zip(remap_list, np.split(numbers + 1, bounds), strict=True):
        if field not in self.field2id_token:
            self.field2id_token[field] = id_token
            self.field2token_id[field] = token_id
        if ftype == FeatureType.TOKEN:
            feat[field] = ids
        elif ftype == FeatureType.TOKEN_SEQ:
            feat[field] = pd.Series(np.split(ids, np.cumsum(_lengths(feat[field]))[:-1]), feat.index)


def _normalize(self: Any) -> None:
    """Scale the float columns that `normalize_field` or `normalize_all` name to [0, 1], constant ones to 1."""
    from recbole.utils import FeatureType

    named, everything = self.config["normalize_field"], self.config["normalize_all"]
    if named is not None and everything is True:
        raise ValueError("normalize_field and normalize_all cannot be given together")
    for field in named or (self.float_like_fields if everything else []):
        if field not in self.field2type:
            raise ValueError(f"normalize_field names {field}, which the dataset does not have")
        for feat in self.field2feats(field):
            if self.field2type[field] == FeatureType.FLOAT:
                feat[field] = _unit_scaled(self, field, feat[field].to_numpy())
            elif self.field2type[field] == FeatureType.FLOAT_SEQ:
                scaled = _unit_scaled(self, field, np.concatenate(list(feat[field])))
                feat[field] = pd.Series(np.split(scaled, np.cumsum(_lengths(feat[field]))[:-1]), feat.index)


def _unit_scaled(dataset: Any, field: str, values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if low == high:
        dataset.logger.warning(f"all values of {field} are the same")
        return np.ones_like(values)
    return (values - low) / (high - low)


# --- A7: tuning --------------------------------------------------------------------------------------------------


def hyperopt_generators() -> tuple[bool, str]:
    """RecBole's exhaustive search hands hyperopt a RandomState, and hyperopt wants a Generator since 0.2.6.

    Upstream: RecBole#1354, #1182, hyperopt#946, #951
    Does nothing where hyperopt is missing or older than 0.2.6.
    """
    try:
        version = importlib.metadata.version("hyperopt")
    except importlib.metadata.PackageNotFoundError:
        return False, "hyperopt is not installed"
    if not _at_least(version, 0, 2, 6):
        return False, f"hyperopt {version} takes a RandomState"
    from recbole.trainer import hyper_tuning

    random = _Proxy(np.random, RandomState=np.random.default_rng)
    hyper_tuning.np = _Proxy(np, str=np.str_, random=random)
    return True, f"hyperopt {version}"


# --- A14: order --------------------------------------------------------------------------------------------------


def repeated_pairs() -> tuple[bool, str]:
    """`rm_dup_inter` sorts by time with a sort that mixes equal times, so that ids and splits are other ones on another NumPy.

    Upstream: no thread known
    Changes nothing unless `rm_dup_inter` is set.
    """  # noqa: E501
    from recbole.data.dataset import dataset

    dataset.Dataset._remove_duplication = _remove_duplication
    return True, "a stable sort"


def _remove_duplication(self: Any) -> None:
    """Keep the first or last interaction of a user with an item by time, or by the file's order at equal times."""
    keep = self.config["rm_dup_inter"]
    if keep is None:
        return
    self._check_field("uid_field", "iid_field")
    if self.time_field in self.inter_feat:
        self.inter_feat = self.inter_feat.sort_values(by=[self.time_field], kind="stable")
    else:
        self.logger.warning(f"rm_dup_inter: {keep} takes the file's order for that of time, as no times are read")
    self.inter_feat = self.inter_feat.drop_duplicates(subset=[self.uid_field, self.iid_field], keep=keep)


# --- A8: metrics -------------------------------------------------------------------------------------------------

_PER_PHASE = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")


def coverage_metrics() -> tuple[bool, str]:
    """ItemCoverage, AveragePopularity, GiniIndex and TailPercentage crash: counts are moved to the CPU like tensors.

    Upstream: RecBole#2191, #2194 (since PR#2071)
    Always acts: every stack is concerned.
    """
    from recbole.evaluator.collector import Collector

    def get_data_struct(self: Any) -> Any:
        import copy

        collected = self.data_struct
        for name, value in collected._data_dict.items():
            if isinstance(value, torch.Tensor):
                collected._data_dict[name] = value.cpu()
        handed_out = copy.deepcopy(collected)
        for name in _PER_PHASE:
            if name in collected:
                del collected[name]
        return handed_out

    Collector.get_data_struct = get_data_struct
    return True, "on every stack"


# --- A9, A11: single models --------------------------------------------------------------------------------------

_SPARSE_PRODUCTS = ("lightgcn", "sgl", "ncl", "gcmc", "spectralcf", "dgcf", "dmf")


def nncf_neighbours() -> tuple[bool, str]:
    """NNCF's `neigh_info_method: knn` calls ItemKNN's similarity as it was before RecBole 1.2.1.

    Upstream: no thread known
    Always acts: every stack is concerned.
    """
    nncf = _module("model.general_recommender.nncf")
    itemknn = _module("model.general_recommender.itemknn")

    class ComputeSimilarity:
        def __init__(self, matrix: Any, topk: int) -> None:
            self.matrix, self.topk = matrix, topk

        def compute_similarity(self, method: str) -> Any:
            return itemknn.ComputeSimilarity(self.matrix, topk=self.topk, method=method).compute_similarity()

    nncf.ComputeSimilarity = ComputeSimilarity
    return True, "on every stack"


def sparse_products() -> tuple[bool, str]:
    """Graph models crash with `enable_amp` because sparse products are not made for half precision.

    Upstream: no thread known
    Changes nothing unless `enable_amp` is set.
    """

    def mm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device_type=right.device.type, enabled=False):
            half = right.dtype in {torch.bfloat16, torch.float16}
            return torch.sparse.mm(left, right.float() if half else right)

    sparse = _Proxy(torch.sparse, mm=mm)
    for name in _SPARSE_PRODUCTS:
        _module(f"model.general_recommender.{name}").torch = _Proxy(torch, sparse=sparse)
    layers = _module("model.layers")  # NGCF's
    layers.torch = _Proxy(torch, sparse=sparse)
    return True, "single precision for sparse products"


def pop_counts() -> tuple[bool, str]:
    """Pop counts an item once a batch however often it occurs there, and sampled negatives as interactions.

    Upstream: no thread known
    Always acts: every stack is concerned.
    """
    from recbole.model.general_recommender import Pop

    init = Pop.__init__

    def __init__(self: Any, config: Any, dataset: Any) -> None:
        init(self, config, dataset)
        self.LABEL = config["LABEL_FIELD"]

    def calculate_loss(self: Any, interaction: Any) -> torch.Tensor:
        items = interaction[self.ITEM_ID]
        if self.LABEL in interaction:
            items = items[interaction[self.LABEL] > 0]
        self.item_cnt.index_add_(0, items, torch.ones_like(items).unsqueeze(1))
        self.max_cnt = self.item_cnt.max(dim=0).values
        return torch.nn.Parameter(torch.zeros(1, device=self.item_cnt.device))

    Pop.__init__ = __init__
    Pop.calculate_loss = calculate_loss
    return True, "on every stack"


MENDS: dict[str, Callable[[], tuple[bool, str]]] = {
    mend.__name__: mend
    for mend in (
        ray_at_import,  # first: the others import what imports ray
        numpy_names,
        plain_checkpoints,
        graph_entries,
        pandas_copies,
        repeated_pairs,
        hyperopt_generators,
        coverage_metrics,
        nncf_neighbours,
        sparse_products,
        pop_counts,
    )
}
