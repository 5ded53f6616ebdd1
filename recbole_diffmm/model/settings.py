"""The typed configuration that every model declares beside its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import Self

from recbole_diffmm.errors import UserError, quoted

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # of a term of a loss or a sum
Share = Annotated[float, Field(ge=0, le=1)]
DropRate = Annotated[float, Field(ge=0, lt=1)]  # probability to drop
Layers = Annotated[int, Field(ge=0)]


class ModelSettings(BaseModel):
    """Hyper-parameters of one model: frozen, closed, uncoerced, each field with a type, a default and its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def from_config(cls, config: Any, source: Callable[[str], str] = lambda key: "the configuration") -> Self:
        """Read this model's fields from a RecBole configuration, or from any mapping with its keys.

        Fields that the configuration does not hold keep their defaults; RecBole's ``config["typo"]`` never gets here
        because the configuration refuses unknown keys when it is built.

        Args:
            config: what has the keys.
            source: says where the value of a key comes from.

        Raises:
            UserError: a value is missing, has the wrong type or is out of range; the message names the key.
        """
        fields = cls.model_fields
        given = {key: config[key] for key in fields if key in config}
        for key, value in given.items():
            # In one word; pydantic would say which of several types it tried.
            if fields[key].annotation in {int, float} and isinstance(value, (bool, str)):
                raise UserError(f"{key} in {source(key)} must be a number, got {quoted(value)}")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "?"
            if first["type"] == "missing":
                model = cls.__name__.removesuffix("Config")
                raise UserError(f"{place} of {model} is missing; give it in properties/model/{model}.yaml") from None
            where = source(str(first["loc"][0]) if first["loc"] else "?")
            message = first["msg"].removeprefix("Value error, ")
            raise UserError(f"{place} in {where}: {message}, got {quoted(first.get('input'))}") from None
