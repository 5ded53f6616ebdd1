"""The typed configuration that every model declares beside its class."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from recbole_diffmm.errors import UserError

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # of a term of a loss or a sum
Share = Annotated[float, Field(ge=0, le=1)]
DropRate = Annotated[float, Field(ge=0, lt=1)]  # probability to drop
Layers = Annotated[int, Field(ge=0)]


class ModelSettings(BaseModel):
    """Hyper-parameters of one model: frozen, closed, uncoerced, each field with a type, a default and its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Read this model's fields from a RecBole configuration.

        Fields that the configuration does not hold keep their defaults; RecBole's ``config["typo"]`` never gets here
        because the configuration refuses unknown keys when it is built.

        Raises:
            UserError: if a value has the wrong type or is out of range; the message names the key.
        """
        keys = cls.model_fields.keys()
        return cls.parse({key: config[key] for key in keys if key in config})

    @classmethod
    def parse(cls, values: Mapping[str, Any], source: str = "the configuration") -> Self:
        """Validate ``values`` and name the first offending key and ``source`` in the error."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"][:1]) or "?"
            near = difflib.get_close_matches(key, cls.model_fields, n=1)
            hint = f"; the nearest known key is {near[0]}" if first["type"] == "extra_forbidden" and near else ""
            got = first.get("input")
            raise UserError(f"{key}={got!r} in {source}: {first['msg'].lower()}{hint}") from None
