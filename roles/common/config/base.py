"""The base of all configuration: strict, immutable sections."""

import re
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

_Number = TypeVar("_Number", bound=int)


def _rising(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("must be rising numbers")
    return values


Rising = Annotated[tuple[_Number, ...], Field(min_length=1), AfterValidator(_rising)]
"""Whole numbers, at least one, each above the one before: ``Rising[PositiveInt]``."""


def matching(pattern: str, words: str) -> AfterValidator:
    """Return what a text has to be, as a regular expression and in words: "must be ``words``"."""

    def checked(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(checked)


class Frozen(BaseModel):
    """A strict, immutable piece of configuration: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, values: Any) -> Any:
        # pydantic would read true as 1. It is not made strict, since YAML reads 1e-3 as a text.
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if field is None or bool in (field.annotation, *get_args(field.annotation)):
                continue
            if isinstance(value, bool):
                raise PydanticCustomError("truth_value", "must not be true or false", {"key": name, "value": value})
        return values
