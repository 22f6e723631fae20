"""What pydantic finds wrong with a config, in one line that names the key and what would be right."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Say what is wrong first: key, value, and what would be right; and how many other mistakes there are.

    Args:
        root: the section that was validated.
    """
    details = error.errors(include_url=False)
    # A typing error in a key often makes another key missing as well: the former is what to put right.
    first = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    keys, section = _locate(first, root)
    # Where a value may be of several types, each of them has an error of its own.
    same = [detail for detail in details if _locate(detail, root)[0] == keys]
    key = ".".join(keys)
    more = "" if len(details) == len(same) else f" (and {len(details) - len(same)} more)"
    if first["type"] == "extra_forbidden":
        known = sorted(section.model_fields)
        close = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}{more}"
    if first["type"] == "truth_value":
        return f"{'.'.join([*keys, first['ctx']['key']])}: got {first['ctx']['value']}: {first['msg']}{more}"
    if first["type"] == "missing":
        return f"{key}: missing{more}"
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        # In a list, the last key is a position.
        field = next(section.model_fields[name] for name in reversed(keys) if name in section.model_fields)
        kinds = ", ".join(_kinds(field.annotation))
        return f"{key}.kind: got {first['input'].get('kind')!r}: must be one of {kinds}{more}"
    if first["type"] in ("model_type", "model_attributes_type"):
        return f"{key}: got {first['input']!r}: must be a section of keys and values{more}"
    messages = [detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be") for detail in same]
    message = ", or ".join([messages[0], *(text.removeprefix("must be ") for text in messages[1:])])
    if first["type"] == "value_error" and isinstance(first["input"], dict | BaseModel):
        return f"{key}: {message}{more}" if key else f"{message}{more}"
    return f"{key}: got {first['input']!r}: {message}{more}"


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
            models, kinds = _models(annotation), _kinds(annotation)
            section = models[0] if len(models) == 1 else section
        elif detail["type"] == "extra_forbidden":
            keys.append(part)
    return keys, section


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a type is made of, however deep in lists and alternatives."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _kinds(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the sections that a field may hold, by their ``kind``; none if it may hold one only."""
    models = _models(annotation)
    return {get_args(m.model_fields["kind"].annotation)[0]: m for m in models} if len(models) > 1 else {}
