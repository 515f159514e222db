"""
The differences between two plans, and which of them break readers of the events.

Readers break if a value can arrive that could not before, or one no longer arrives: an event or
a field is removed, a field becomes optional, a type gets wider. New events, new fields and
narrower types break nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .schema import describe, problems, resolve


__all__ = ["Change", "changes_in", "is_narrower"]

Schema = Mapping[str, Any]

_DEEPEST = 20

#: Bounds that must not get looser: lower ones, upper ones, and those that must stay the same.
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SAME = ("pattern", "format", "multipleOf", "uniqueItems")


class Change(NamedTuple):
    """One difference: whether it breaks readers, and a description."""

    breaks: bool
    text: str


def changes_in(old: Schema, new: Schema) -> Iterator[Change]:
    """Yield the differences between two schemas of an event's properties."""
    yield from _changes(old, new, old, new, "", 0)


def _changes(
    old: Schema, new: Schema, old_root: Schema, new_root: Schema, path: str, depth: int
) -> Iterator[Change]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in sorted(before.keys() | after.keys()):
        field = f"{path}{name}"
        if name not in after:
            yield Change(True, f"{field} is gone")
        elif name not in before:
            yield Change(False, f"{field} is new: {describe(after[name], new_root)}")
        else:
            required = [name in schema.get("required", ()) for schema in (old, new)]
            if required == [True, False]:
                yield Change(True, f"{field} may be missing now")
            elif required == [False, True]:
                yield Change(False, f"{field} is always there now")
            pair = resolve(before[name], old_root), resolve(after[name], new_root)
            if depth < _DEEPEST and all(
                isinstance(o, Mapping) and "properties" in o for o in pair
            ):
                yield from _changes(*pair, old_root, new_root, f"{field}.", depth + 1)
            else:
                yield from _change_of_type(field, *pair, old_root, new_root)


def _change_of_type(
    field: str, old: Any, new: Any, old_root: Schema, new_root: Schema
) -> Iterator[Change]:
    was, is_ = describe(old, old_root), describe(new, new_root)
    text = f"{field}: {was} before, {is_} now" if was != is_ else f"{field}: not the same {was}"
    if not is_narrower(new, old, new_root, old_root):
        yield Change(True, text)
    elif not is_narrower(old, new, old_root, new_root):
        yield Change(False, text)


def is_narrower(new: Any, old: Any, new_root: Schema, old_root: Schema, depth: int = 0) -> bool:
    """Return whether *old* allows every value that *new* allows; False if that is not certain."""
    new, old = resolve(new, new_root), resolve(old, old_root)
    if not isinstance(old, Mapping) or not _says_something(old) or depth > _DEEPEST:
        return old is not False

    def narrower(new_part: Any, old_part: Any) -> bool:
        return is_narrower(new_part, old_part, new_root, old_root, depth + 1)

    if not isinstance(new, Mapping):
        return new is False
    for key in ("anyOf", "oneOf"):
        if key in new:
            return all(narrower(option, old) for option in new[key])
    if "const" in new or "enum" in new:
        values = new.get("enum", [new.get("const")])
        return not any(problems(old, value, root=old_root) for value in values)
    for key in ("anyOf", "oneOf"):
        if key in old:
            return any(narrower(new, option) for option in old[key])
    if "const" in old or "enum" in old:
        return False
    return _types(new) <= _types(old) and _is_tighter(new, old) and _inside(new, old, narrower)


def _says_something(schema: Schema) -> bool:
    return bool(schema.keys() - {"title", "description", "default", "deprecated", "examples"})


def _types(schema: Schema) -> set[str]:
    """Return the types that *schema* allows; an integer is a number, too."""
    given = schema.get("type")
    if given is None:
        return {"null", "boolean", "string", "integer", "number", "array", "object"}
    kinds = {given} if isinstance(given, str) else set(given)
    return kinds | {"integer"} if "number" in kinds else kinds


def _is_tighter(new: Schema, old: Schema) -> bool:
    return (
        all(key in new and new[key] >= old[key] for key in _LEAST if key in old)
        and all(key in new and new[key] <= old[key] for key in _MOST if key in old)
        and all(new.get(key) == old[key] for key in _SAME if key in old)
    )


def _inside(new: Schema, old: Schema, narrower: Callable[[Any, Any], bool]) -> bool:
    """Return whether the items and fields of *new* are narrower, too."""
    if "items" in old and not narrower(new.get("items", True), old["items"]):
        return False
    first = zip(new.get("prefixItems", ()), old.get("prefixItems", ()), strict=False)
    if not all(narrower(*pair) for pair in first):
        return False
    if not set(old.get("required", ())) <= set(new.get("required", ())):
        return False
    rest = new.get("additionalProperties", True)
    known = new.get("properties", {})
    if not all(
        narrower(known.get(name, rest), part)
        for name, part in old.get("properties", {}).items()
        if name in known or not isinstance(rest, bool)
    ):
        return False
    gone = old.get("properties", {}).keys() - known.keys()
    more = old.get("additionalProperties", True)
    return not gone and (more is True or narrower(rest, more))
