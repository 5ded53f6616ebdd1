"""RecBole's dataset with checks of its files, and with item modalities."""

from __future__ import annotations

import hashlib
from logging import getLogger
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.utils import FeatureType

from recbole_diffmm.checks import is_interval
from recbole_diffmm.data.features import load_modality, require_file, select_modalities
from recbole_diffmm.data.modality import ModalityFeatures
from recbole_diffmm.errors import UserError, nearest
from recbole_diffmm.provenance import hash_files

# RecBole's token of the id 0, which fills.
PAD = "[PAD]"
# What RecBole applies to data that it splits itself, and skips without a word where the split is already made; and the
# value of each that filters nothing, or that it has by default.
_FILTERS: dict[str, Any] = {
    "rm_dup_inter": None,
    "val_interval": None,
    "filter_inter_by_user_or_item": True,
    "user_inter_num_interval": "[0,inf)",
    "item_inter_num_interval": "[0,inf)",
}


class CheckedDataset(Dataset):
    """RecBole's dataset, read from local files only and told in one line what is wrong with them.

    Raises:
        UserError: a file is missing, empty or no text, has no interactions, no column of ids or a blank id where the
            split is already made, or filters leave nothing.
    """

    def _data_processing(self) -> None:
        if self.benchmark_filename_list is not None:
            self._tell_unused_filters()
        super()._data_processing()
        for field in (self.uid_field, self.iid_field):
            if (np.asarray(self.field2id_token[field])[1:] == PAD).any():
                raise UserError(
                    f"{self.dataset_name} has a {field} {PAD!r}, which is RecBole's name of none; give it another id"
                )
        repeated = int(self.inter_feat.duplicated([self.uid_field, self.iid_field]).sum())
        if repeated:
            # One copy in training and another in test is a leak that lifts every figure.
            getLogger(__name__).warning(
                f"{self.dataset_name}: {repeated} of {len(self.inter_feat)} interactions repeat a user-item pair, so "
                "that training pairs can come again in validation and test; rm_dup_inter: first keeps one of each"
            )

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        # RecBole reads an empty file as a pandas error, and one without rows as an index error much later
        folder = Path(dataset_path)
        suffixes = self.benchmark_filename_list
        if suffixes is not None and (not isinstance(suffixes, list) or len(suffixes) != 3):
            raise UserError(f"benchmark_filename is {suffixes!r}, expected three suffixes such as [train, valid, test]")
        files = [f"{token}.inter"] if suffixes is None else [f"{token}.{suffix}.inter" for suffix in suffixes]
        for file in files:
            require_file(folder / file, "interactions")
            self._check_header(folder / file)
        super()._load_inter_feat(token, dataset_path)
        for file, rows in zip(files, self.file_size_list if suffixes else [len(self.inter_feat)], strict=True):
            if rows == 0:
                raise UserError(f"{folder / file} has no interactions below its header")

    def _check_header(self, path: Path) -> None:
        names = [name for name, _ in self._header(path)]
        for field in (self.uid_field, self.iid_field):
            if field not in names:
                raise UserError(
                    f"{path} has no column {field}:token in its first line but {names}; name it so, or set "
                    "USER_ID_FIELD and ITEM_ID_FIELD"
                )

    def _header(self, path: Path) -> list[tuple[str, str]]:
        """Name and type of each column, as the first line has them; a column without a type has an empty one."""
        with path.open(encoding=self.config["encoding"], errors="replace") as file:
            columns = file.readline().rstrip("\r\n").split(self.config["field_separator"])
        return [(name, kind) for name, _, kind in (column.partition(":") for column in columns)]

    def _load_feat(self, filepath: str, source: Any) -> Any:
        path, header = Path(filepath), self._header(Path(filepath))
        # RecBole leaves a name of load_col out without a word where the file has no such column
        wanted, _ = self._get_load_and_unload_col(source)
        columns = [name for name, _ in header]
        for name in sorted(wanted or ()):
            if name not in columns:
                raise UserError(
                    f"load_col{_from(self.config, 'load_col')} names {name!r}, a column that {filepath} does not have"
                    f"{nearest(name, columns, cutoff=0.3)} (it has {', '.join(columns)})"
                )
        for name, kind in header:
            _check_type(path, name, kind, (self.uid_field, self.iid_field))
        try:
            n_lines, quote = self._check_lines(path, len(header))
            frame = super()._load_feat(filepath, source)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not {error.encoding} text (byte {error.object[error.start]:#x}); write it as UTF-8, or set "
                "encoding"
            ) from error
        except ValueError as error:  # of pandas, which says in which line
            raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}; mend the file") from error
        if frame is not None and quote and len(frame) != n_lines:
            raise UserError(
                f"{path} has {n_lines} lines below its header, and {len(frame)} rows were read from them: a quotation "
                f"mark, as in line {quote}, opens a text that goes on over lines; take it out, or put the whole cell "
                "into quotation marks with those inside it doubled"
            )
        if frame is not None:
            for field in {self.uid_field, self.iid_field} & set(frame.columns):
                self._keep_ids(path, frame, field)
        return frame

    def _check_lines(self, path: Path, n_columns: int) -> tuple[int, int]:
        """Refuse a row with more cells than the header, the surplus of which pandas would leave out without a word.

        Returns:
            How many lines below the header are not blank, and the number of the first with a quotation mark, or 0.
        """
        separator = self.config["field_separator"]
        n_lines = quote = 0
        with path.open(encoding=self.config["encoding"]) as lines:
            for number, line in enumerate(lines, 1):
                if '"' in line:  # in quotes, a separator is text
                    quote = quote or number
                elif line.count(separator) >= n_columns:
                    raise UserError(
                        f"{path} has more cells in line {number} than columns in its header ({n_columns}); mend the "
                        "line, or name the column"
                    )
                n_lines += number > 1 and (separator in line or not line.isspace())
        return n_lines, quote

    def _keep_ids(self, path: Path, frame: pd.DataFrame, field: str) -> None:
        """Put back ids that pandas takes for missing values, such as ``NA``, and refuse blank ones in a given split."""
        missing = frame[field].isnull()
        if not missing.any():
            return
        cells = pd.read_csv(
            path,
            delimiter=self.config["field_separator"],
            usecols=[f"{field}:token"],
            dtype=str,
            encoding=self.config["encoding"],
            engine="python",
            keep_default_na=False,
        ).iloc[:, 0]
        cells = cells.where(cells != "", None)
        blank = np.flatnonzero(cells.isnull())
        if blank.size and self.benchmark_filename_list is not None:
            # RecBole drops such rows where it splits itself; here it would train on them as on PAD
            raise UserError(
                f"{path} has no {field} in row {blank[0] + 1} below its header ({blank.size} such rows); write the id, "
                "or leave the row out"
            )
        frame[field] = frame[field].where(~missing, cells)

    def _filters(self) -> dict[str, Any]:
        return {
            key: self.config[key] for key, none in _FILTERS.items() if self.config[key] not in (None, False, "", none)
        }

    def _tell_unused_filters(self) -> None:
        for key, value in self._filters().items():
            getLogger(__name__).warning(
                f"{key}{_from(self.config, key)} is {value!r}, which changes nothing: dataset {self.dataset_name} is "
                "split already (benchmark_filename), so that nothing is filtered"
            )

    def _reset_index(self) -> None:
        if len(self.inter_feat) == 0:
            by = ", ".join(f"{key}: {value}" for key, value in self._filters().items()) or "ids that are there"
            raise UserError(
                f"dataset {self.dataset_name} has no interactions left after filtering by {by}; filter less"
            )
        super()._reset_index()

    def _parse_intervals_str(self, intervals_str: Any) -> Any:
        # RecBole warns of what is no interval, and then filters by something else or not at all
        if intervals_str is not None and not is_interval(intervals_str):
            raise UserError(
                f"{intervals_str!r} is no interval of numbers; write one such as '[10,inf)', with quotes around it"
            )
        return super()._parse_intervals_str(intervals_str)

    def build(self) -> list[Any]:
        """Split as the configuration says.

        Raises:
            UserError: the order is by time or the evaluation by labels, and none were read.
        """
        asked = self.config["eval_args"]
        if asked["order"] == "TO" and self.benchmark_filename_list is None:
            self._require_column(self.time_field, "TIME_FIELD", "order: TO")
        if "labeled" in dict(asked["mode"]).values():
            self._require_column(self.label_field, "LABEL_FIELD", "mode: labeled")
        return list(super().build())

    def _require_column(self, field: str, key: str, asked: str) -> None:
        if field not in self.inter_feat:
            raise UserError(
                f"eval_args{_from(self.config, 'eval_args')} asks for {asked}, but no column {field} of dataset "
                f"{self.dataset_name} is read; add it to load_col, or set {key}"
            )

    def _download(self) -> NoReturn:
        # RecBole would fetch an archive from the network, or wait for a distributed group that is not there
        folder = Path(self.dataset_path)
        known = [p.name for p in folder.parent.glob("[!.]*") if p.is_dir()]
        hint = nearest(self.dataset_name, known, cutoff=0.6) or "; convert it first, see dataset/README.md"
        raise UserError(f"dataset {self.dataset_name} is not in {folder.parent}: {folder} does not exist{hint}")

    def training_interactions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The user and item ids of this split's interactions (call it on the training split).

        Returns:
            Two int64 tensors of one length, RecBole's ids (1 and up; 0 is PAD).
        """
        return self.inter_feat[self.uid_field].long(), self.inter_feat[self.iid_field].long()


class MultimodalDataset(CheckedDataset):
    """RecBole's dataset plus the features of its items, one entry per modality.

    The dataset's YAML lists the modalities, under any names; paths are relative to the dataset's folder::

        modalities:
          text: {features: text_feat.npy, ids: item_ids.txt}

    Features are read after RecBole has filtered and remapped the ids, so they never change the vocabulary.

    Attributes:
        modalities: dict of :class:`ModalityFeatures`, in the order of ``use_modalities`` or else of the YAML.

    Raises:
        UserError: a file is missing, empty or does not fit, or a model that needs a modality gets none.
    """

    modalities: dict[str, ModalityFeatures]

    def _data_processing(self) -> None:
        super()._data_processing()
        tokens = self.field2id_token[self.iid_field]
        specs = select_modalities(
            self.config["modalities"],
            self.config["use_modalities"],
            Path(self.dataset_path),
            self.dataset_name,
            {key: _from(self.config, key) for key in ("modalities", "use_modalities")},
        )
        if not specs and getattr(self.config.model_class, "uses_modalities", False):
            raise UserError(
                f"model {self.config['model']} needs at least one modality and dataset {self.dataset_name} gives none; "
                "list them under 'modalities' in its YAML, and check use_modalities"
            )
        self.modalities = {spec.name: load_modality(spec, tokens, self.dataset_name) for spec in specs}
        # now, because a file that changes later is not what was read
        self._feature_hashes = {spec.name: hash_files(spec.features, spec.ids) for spec in specs}

    def feature_hashes(self) -> dict[str, str]:
        """SHA-256 per modality over its feature file and id file, as hexadecimal digits."""
        return dict(self._feature_hashes)


def interaction_hash(dataset: Dataset) -> str:
    """SHA-256 of a dataset's interactions as raw ids, the same for any order of rows and ids.

    Args:
        dataset: Any RecBole dataset with user and item ids, whole or one split of it.

    Returns:
        Hexadecimal digits.
    """
    users, items = (_raw_ids(dataset, field) for field in (dataset.uid_field, dataset.iid_field))
    pairs = np.sort(np.char.add(np.char.add(users, "\t"), items))
    digest = hashlib.sha256()
    for start in range(0, len(pairs), 1 << 20):
        digest.update("\n".join([*pairs[start : start + (1 << 20)].tolist(), ""]).encode())
    return digest.hexdigest()


def _raw_ids(dataset: Dataset, field: str) -> np.ndarray:
    values: Any = dataset.inter_feat[field]
    return np.asarray(dataset.field2id_token[field]).astype(str)[np.asarray(values).astype(np.int64)]


def _from(config: Any, key: str) -> str:
    """Where a key's value stands, " in FILE", empty under RecBole's own configuration, which does not know."""
    return f" in {config.source(key)}" if hasattr(config, "source") else ""


def _check_type(path: Path, name: str, kind: str, ids: tuple[str, str]) -> None:
    known = [kind.value for kind in FeatureType]
    if kind not in known:
        raise UserError(
            f"{path} has a column {f'{name}:{kind}' if kind else name!r} in its first line, whose type is none of "
            f"{', '.join(known)}{nearest(kind, known)}"
        )
    if name in ids and kind != "token":
        raise UserError(f"{path} has a column {name}:{kind} in its first line; ids are tokens, write {name}:token")
