"""What is searched: our YAML and RecBole's own range syntax, as one kind of range."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from recbole_diffmm.errors import UserError, nearest
from recbole_diffmm.sources import load_yaml, property_folders, read_yaml

_SHARES = "share_of_one"
_FORMS = (
    "a list of values, {low: 1, high: 4}, {low: 1e-4, high: 1e-2, log: true}, RecBole's 'loguniform -8,-4', or for "
    f"weights of modalities {{{_SHARES}: [0.7, 0.9]}}"
)


class Range(BaseModel):
    """The values that one setting may take.

    Attributes:
        kind: ``choice`` of `values`, or a number from `low` to `high`, both included.
        step: Distance of neighbouring numbers; None for any.
        log: Whether the logarithm is uniform rather than the number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["choice", "int", "float"]
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if self.kind == "choice":
            if not self.values:
                raise ValueError("there is nothing to choose from")
            return self
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be less than high, got {self.low:g} and {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be more than 0, got {self.step:g}")
        return self

    def draw(self, name: str, trial: Any) -> Any:
        """Return the value that an Optuna `trial` takes."""
        if self.kind == "choice":
            # Optuna keeps only single values: a list is drawn by its text.
            return self.decode(trial.suggest_categorical(name, [self._label(value) for value in self.values]))
        if self.kind == "int":
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def decode(self, value: Any) -> Any:
        """Return the setting that Optuna's parameter `value` stands for."""
        if self.kind != "choice":
            return value
        return next((choice for choice in self.values if self._label(choice) == value), value)

    def encode(self, value: Any) -> Any:
        """Return Optuna's parameter for a setting, a number's nearest end where the range ends before it.

        None where a choice has no such value, or a number falls between two steps.
        """
        if self.kind == "choice":
            return next((self._label(choice) for choice in self.values if choice == value), None)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        value = min(max(value, self.low), self.high)
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        if not math.isfinite(steps) or abs(steps - round(steps)) > 1e-9:
            return None
        if self.kind == "float":
            return float(value)
        return int(value) if value == int(value) else None

    @staticmethod
    def _label(value: Any) -> Any:
        return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def load_space(model: str, path: Path | None = None, modalities: Sequence[str] = ()) -> tuple[dict[str, Range], str]:
    """Return the search space of a model and the file it comes from.

    Args:
        model: Name of the model.
        path: A YAML file of settings and their ranges, or a file of RecBole's lines ``learning_rate loguniform -8,-4``;
            `properties/tune/<Model>.yaml` by default.
        modalities: Names of those that the model gets, for weights of modalities: ``{share_of_one: [0.7, 0.9]}`` is
            null, for equal shares, and for each modality one of these shares, the others parting what is left.

    Raises:
        UserError: There is none, or a range cannot be read.
    """
    if path is None:
        files = [folder / "tune" / f"{model}.yaml" for folder in property_folders()]
        found = [file for file in files if file.is_file()]
        if not found:
            raise UserError(f"there is no properties/tune/{model}.yaml; write one, or give --space FILE")
        path = found[-1]
    values = read_yaml(path) if path.suffix in {".yaml", ".yml"} else _read_lines(path)
    if not values:
        raise UserError(f"{path} has no setting to search; give at least one, such as learning_rate: [0.001, 0.01]")
    return {name: read_range(name, value, path, modalities) for name, value in values.items()}, path.name


def _read_lines(path: Path) -> dict[str, Any]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"search space {path} cannot be read; give a YAML file or one of RecBole's lines") from None
    values = {}
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            name, *rest = line.split(None, 1)
            values[name] = rest[0].strip() if rest else ""
    return values


def read_range(name: str, value: Any, path: Path, modalities: Sequence[str] = ()) -> Range:
    """Return the range that the YAML file `path` gives a setting."""
    try:
        if isinstance(value, list):
            return Range(kind="choice", values=tuple(value))
        if isinstance(value, Mapping) and _SHARES in value:
            return Range(kind="choice", values=(None, *_weights(name, value, path, modalities)))
        if isinstance(value, Mapping):
            for key in value:
                if key not in {"low", "high", "step", "log"}:
                    hint = nearest(str(key), ["low", "high", "step", "log", _SHARES], cutoff=0.3)
                    raise UserError(f"{name} in {path}: unknown key {key!r}{hint}; write {_FORMS}")
            if "low" not in value or "high" not in value:
                missing = "low" if "low" not in value else "high"
                raise UserError(f"{name} in {path}: {missing} is missing; write {_FORMS}")
            whole = all(isinstance(value.get(key, 0), int) for key in ("low", "high", "step"))
            return Range(kind="int" if whole else "float", **value)
        if isinstance(value, str):
            return _recbole_range(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"{name} in {path}: {message}; write {_FORMS}") from None
    except (ArithmeticError, ValueError, yaml.YAMLError):
        pass
    raise UserError(f"{name} in {path}: cannot read {value!r} as a range; write {_FORMS}")


def _weights(name: str, value: Mapping[str, Any], path: Path, modalities: Sequence[str]) -> list[dict[str, float]]:
    """Weights of modalities in which one has a given share."""
    shares = value[_SHARES]
    numbers = isinstance(shares, list) and all(type(x) in {int, float} and 0 < x <= 1 for x in shares)
    if len(value) > 1 or not numbers or not shares:
        raise UserError(f"{name} in {path}: cannot read {dict(value)!r}; write {{{_SHARES}: [0.7, 0.9]}}")
    if len(modalities) < 2:
        return []
    return [
        {other: share if other == one else round((1 - share) / (len(modalities) - 1), 6) for other in modalities}
        for one in modalities
        for share in map(float, shares)
    ]


def _recbole_range(text: str) -> Range:
    """RecBole's `choice [1,2]`, `uniform 0,1`, `quniform 8,64,8` and `loguniform -8,-4` (exponents of e)."""
    kind, rest = (*text.split(None, 1), "", "")[:2]
    if kind == "choice":
        try:
            values = ast.literal_eval(rest.strip())  # where RecBole evaluates code
        except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
            values = load_yaml(rest)
        if not isinstance(values, (list, tuple)):
            raise ValueError(rest)
        return Range(kind="choice", values=tuple(map(_setting, values)))
    numbers = [float(part) for part in re.split(r"[,\s]+", rest.strip())]
    if kind == "uniform" and len(numbers) == 2:
        return Range(kind="float", low=numbers[0], high=numbers[1])
    if kind == "loguniform" and len(numbers) == 2:
        return Range(kind="float", low=math.exp(numbers[0]), high=math.exp(numbers[1]), log=True)
    if kind == "quniform" and len(numbers) == 3:
        low, high, step = numbers
        if low < high and step > 0:  # Hyperopt draws from low to high and rounds to the nearest multiple of the step
            low, high = (_multiple(end, step) for end in (low, high))
        whole = all(number.is_integer() for number in (low, high, step))
        return Range(kind="int" if whole else "float", low=low, high=high, step=step)
    raise ValueError(text)


def _multiple(number: float, step: float) -> float:
    return float(Decimal(str(step)) * round(Decimal(str(number)) / Decimal(str(step))))


def _setting(value: Any) -> Any:
    """What RecBole makes of a chosen value: it reads a text once more, so that '[64,32]' is how to choose a list."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (SyntaxError, TypeError, ValueError):
        return {"true": True, "false": False}.get(value.lower(), value)
