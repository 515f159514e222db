"""
The part of JSON Schema that plans use: check a value, and describe what a schema allows.

Supports the keywords of draft 2020-12 that Python types are translated to; any other keyword is
ignored.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


__all__ = ["Problem", "describe", "problems", "resolve"]

Schema = Mapping[str, Any]

_LONGEST = 80  # characters of a value that a `Problem` shows


class Problem(NamedTuple):
    """A value that does not fit: the field, the value as text, and what is allowed."""

    field: str
    came: str
    may: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.may}, got {self.came}"


#: The types of JSON: a test, and a description.
_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "null": (lambda value: value is None, "null"),
    "boolean": (lambda value: isinstance(value, bool), "true or false"),
    "string": (lambda value: isinstance(value, str), "a string"),
    "integer": (lambda value: _is_number(value) and _is_whole(value), "a whole number"),
    "number": (lambda value: _is_number(value), "a number"),
    "array": (lambda value: isinstance(value, list), "a list"),
    "object": (lambda value: isinstance(value, dict), "an object"),
}

_FORMATS: dict[str, tuple[Callable[[str], Any], str]] = {
    "date-time": (dt.datetime.fromisoformat, "a date and time in ISO 8601"),
    "date": (dt.date.fromisoformat, "a date in ISO 8601"),
    "time": (dt.time.fromisoformat, "a time in ISO 8601"),
    "uuid": (uuid.UUID, "a UUID"),
}

#: The bounds: the types they apply to, a test, and a description.
_BOUNDS: dict[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool], str]] = {
    "minimum": ((int, float), lambda value, bound: value >= bound, "at least {}"),
    "maximum": ((int, float), lambda value, bound: value <= bound, "at most {}"),
    "exclusiveMinimum": ((int, float), lambda value, bound: value > bound, "more than {}"),
    "exclusiveMaximum": ((int, float), lambda value, bound: value < bound, "less than {}"),
    "multipleOf": ((int, float), lambda value, bound: _is_multiple(value, bound), "times {}"),
    "minLength": (str, lambda value, bound: len(value) >= bound, "{} or more characters"),
    "maxLength": (str, lambda value, bound: len(value) <= bound, "{} or fewer characters"),
    "pattern": (str, lambda value, bound: _matches(value, bound), "matching {}"),
    "minItems": (list, lambda value, bound: len(value) >= bound, "{} or more items"),
    "maxItems": (list, lambda value, bound: len(value) <= bound, "{} or fewer items"),
    "minProperties": (dict, lambda value, bound: len(value) >= bound, "{} or more fields"),
    "maxProperties": (dict, lambda value, bound: len(value) <= bound, "{} or fewer fields"),
}


def problems(
    schema: Any, value: Any, field: str = "", root: Schema | None = None
) -> list[Problem]:
    """
    Return everything in the JSON *value* that *schema* does not allow.

    *field* is the path to the value, for messages; *root* is the schema that references point
    into, by default *schema*.
    """
    whole = schema if root is None and isinstance(schema, Mapping) else root or {}
    return list(_problems(schema, value, field, whole))


def resolve(schema: Any, root: Schema) -> Any:
    """Follow the reference of *schema* inside *root*; without one, return *schema*."""
    for _ in range(10):  # bounded, as references may be circular
        if not isinstance(schema, Mapping) or "$ref" not in schema:
            break
        found: Any = root
        for part in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            found = found.get(part) if isinstance(found, Mapping) else None
        schema = found if found is not None else {}
    return schema


def describe(schema: Any, root: Schema | None = None) -> str:
    """Describe what *schema* allows; its references point into *root*."""
    whole = root if root is not None else schema
    return _listed(_alternatives(schema, whole))


def _alternatives(schema: Any, root: Schema) -> list[str]:
    schema = resolve(schema, root)
    if schema is False:
        return ["nothing"]
    if not isinstance(schema, Mapping):
        return ["anything"]
    if "const" in schema or "enum" in schema:
        return [_shown(option) for option in schema.get("enum", [schema.get("const")])]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return [words for option in schema[key] for words in _alternatives(option, root)]
    return [" ".join([_described_type(schema, root), *_described_bounds(schema)])]


def _described_type(schema: Schema, root: Schema) -> str:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds == ["string"] and schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]][1]
    if kinds == ["array"] and isinstance(schema.get("items"), Mapping):
        return f"a list, each item {describe(schema['items'], root)}"
    return _listed([_TYPES[kind][1] for kind in kinds if kind in _TYPES]) or "anything"


def _described_bounds(schema: Schema) -> Iterator[str]:
    for key, (_, _, words) in _BOUNDS.items():
        if key in schema:
            yield words.format(schema[key])


def _problems(schema: Any, value: Any, field: str, root: Schema) -> Iterator[Problem]:
    schema = resolve(schema, root)
    if schema is False:
        yield Problem(field, _shown(value), "nothing")
    if not isinstance(schema, Mapping):
        return
    if not _is_one_of(schema, value) or not _has_type(schema, value) or _breaks(schema, value):
        yield Problem(field, _shown(value), describe(schema, root))
        return
    for part in schema.get("allOf", ()):
        yield from _problems(part, value, field, root)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            yield from _in_alternatives(schema[key], value, field, root)
    if isinstance(value, dict):
        yield from _in_object(schema, value, field, root)
    elif isinstance(value, list):
        yield from _in_list(schema, value, field, root)


def _in_alternatives(
    alternatives: list[Any], value: Any, field: str, root: Schema
) -> Iterator[Problem]:
    """
    Yield nothing if one alternative fits.

    Else yield the problems of the one alternative of the right type, if there is just one; else
    a problem that describes all alternatives.
    """
    found = [(option, problems(option, value, field, root)) for option in alternatives]
    if not found or any(not wrong for _, wrong in found):
        return
    near = [wrong for _, wrong in found if wrong[0].field != field]
    if len(near) == 1:
        yield from near[0]
    else:
        yield Problem(field, _shown(value), describe({"anyOf": alternatives}, root))


def _in_object(
    schema: Schema, value: dict[str, Any], field: str, root: Schema
) -> Iterator[Problem]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            may = describe(known.get(name, {}), root)
            yield Problem(_path(field, name), "nothing", may)
    rest = schema.get("additionalProperties", True)
    for name, member in value.items():
        if name in known:
            yield from _problems(known[name], member, _path(field, name), root)
        elif field or not name.startswith("$"):  # PostHog's own properties are allowed
            yield from _problems(rest, member, _path(field, name), root)


def _in_list(schema: Schema, value: list[Any], field: str, root: Schema) -> Iterator[Problem]:
    first = schema.get("prefixItems", [])
    for number, member in enumerate(value):
        rule = first[number] if number < len(first) else schema.get("items", True)
        yield from _problems(rule, member, f"{field}[{number}]", root)
    if schema.get("uniqueItems") and _has_duplicates(value):
        yield Problem(field, "an item twice", "each once")


def _has_duplicates(members: list[Any]) -> bool:
    return len({json.dumps(member, sort_keys=True) for member in members}) < len(members)


def _is_one_of(schema: Schema, value: Any) -> bool:
    if "const" in schema and not _same(schema["const"], value):
        return False
    return "enum" not in schema or any(_same(allowed, value) for allowed in schema["enum"])


def _has_type(schema: Schema, value: Any) -> bool:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return not kinds or any(_TYPES[kind][0](value) for kind in kinds if kind in _TYPES)


def _breaks(schema: Schema, value: Any) -> bool:
    """Return whether *value* is out of bounds or does not have the format."""
    for key, (kinds, holds, _) in _BOUNDS.items():
        applies = key in schema and isinstance(value, kinds) and not isinstance(value, bool)
        if applies and not holds(value, schema[key]):
            return True
    form = _FORMATS.get(schema.get("format", ""))
    if form is None or not isinstance(value, str):
        return False
    try:
        form[0](value)
    except ValueError:
        return True
    return False


def _same(left: Any, right: Any) -> bool:
    """Return whether two values are equal in JSON, where true does not equal 1."""
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or float(value).is_integer()


def _is_multiple(value: Any, bound: Any) -> bool:
    times = float(value) / float(bound)
    return abs(times - round(times)) < 1e-9


def _matches(value: str, pattern: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:  # an expression of another language
        return True


def _path(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _listed(words: list[str]) -> str:
    """Join *words* as in a sentence: a, b or c."""
    words = list(dict.fromkeys(words))
    return " or ".join([*filter(None, [", ".join(words[:-1])]), *words[-1:]])


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
