"""What pydantic finds wrong with a config, in one line that names the key and what would be right."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sim.config.errors import ConfigError

_WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "must be a section of keys and values"),
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
}
"""What pydantic's kinds of errors are in words that need no Python."""


@contextmanager
def explained(root: type[BaseModel], source: str) -> Iterator[None]:
    """Explain what is found wrong with the section ``root`` that is validated in a block.

    Raises:
        ConfigError: ``source``, then key, value and what would be right, and how many other mistakes there are.
    """
    try:
        yield
    except ValidationError as error:
        raise ConfigError(f"{source}{_explain(error.errors(include_url=False), root)}") from error


def _explain(details: list[ErrorDetails], root: type[BaseModel]) -> str:
    # A typing error in a key often makes another key missing as well: the former is what to put right.
    first = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    keys, section = _locate(first, root)
    # Where a value may be of several types, each of them has an error of its own.
    same = [_in_words(detail) for detail in details if _locate(detail, root)[0] == keys]
    more = "" if len(details) == len(same) else f" (and {len(details) - len(same)} more)"
    got, kind = f"got {first['input']!r}: ", first["type"]
    said = ", or ".join([same[0], *(message.removeprefix("must be ") for message in same[1:])])
    if kind == "extra_forbidden":
        known = sorted(section.model_fields)
        close = difflib.get_close_matches(keys[-1], known, n=1)
        got, said = "unknown key; ", f"did you mean {close[0]!r}?" if close else f"known keys here: {', '.join(known)}"
    elif kind == "missing":
        got, said = "", "missing"
    elif kind == "truth_value":
        keys, got = [*keys, first["ctx"]["key"]], f"got {first['ctx']['value']}: "
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        # In a list, the last key is a position.
        field = next(section.model_fields[name] for name in reversed(keys) if name in section.model_fields)
        keys, got = [*keys, "kind"], f"got {first['input'].get('kind')!r}: "
        said = f"must be one of {', '.join(kinds_of(field.annotation))}"
    elif kind == "value_error" and isinstance(first["input"], dict | BaseModel):
        got = ""
    return f"{'.'.join(keys)}{': ' if keys else ''}{got}{said}{more}"


def _in_words(detail: ErrorDetails) -> str:
    kind, told = detail["type"], detail.get("ctx", {})
    if kind in ("too_short", "too_long"):
        bound = f"least {told['min_length']}" if kind == "too_short" else f"most {told['max_length']}"
        return f"must have at {bound} entries, has {told['actual_length']}"
    return _WORDS.get(kind) or detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _locate(detail: ErrorDetails, root: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Return the path to what an error is about, without pydantic's names of alternatives, and the section it is in."""
    keys: list[str] = []
    section, kinds = root, dict[str, type[BaseModel]]()
    for part in detail["loc"]:
        if isinstance(part, int):
            keys.append(str(part))
        elif part in kinds:
            section, kinds = kinds[part], {}
        elif part in section.model_fields:
            keys.append(part)
            annotation = section.model_fields[part].annotation
            models, kinds = _models(annotation), kinds_of(annotation)
            section = models[0] if len(models) == 1 else section
        elif detail["type"] == "extra_forbidden":
            keys.append(part)
    return keys, section


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a type is made of, however deep in lists and alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def kinds_of(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the sections that a field may hold, by their ``kind``; none if it may hold one only."""
    models = _models(annotation)
    return {get_args(m.model_fields["kind"].annotation)[0]: m for m in models} if len(models) > 1 else {}
