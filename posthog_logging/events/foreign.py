"""
Convert values of other libraries for JSON, by their own methods and without importing them.

Nothing here runs a database query or loads a deferred attribute.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from .faults import faults


__all__ = ["UNKNOWN", "Unreadable", "attributes", "dumped", "form_of"]

#: Returned for values of no library that is known here.
UNKNOWN = object()


class Unreadable(str):
    """The note in place of an attribute that cannot be read."""

    __slots__ = ()


# The units of numpy's times that are finer than Python's microseconds.
_FINE = ("[ns]", "[ps]", "[fs]", "[as]")


def form_of(value: Any, most: int) -> Any:
    """
    Return a simpler value equal to *value*, or `UNKNOWN`.

    Containers are cut to about *most* members, with a note of how many are missing.
    """
    kind = type(value)
    for base in kind.__mro__:
        convert = _BY_NAME.get((str(base.__module__).partition(".")[0], base.__name__))
        if convert is not None:
            return convert(value, most)
    for name, convert in _BY_ATTRIBUTE.items():
        if hasattr(kind, name):
            return convert(value, most)
    return UNKNOWN


def attributes(value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the attributes *names* of *value*; one that cannot be read becomes a note."""
    return {name: _attribute(value, name) for name in names}


def dumped(value: Any, **options: Any) -> Any:
    """Return what pydantic makes of its model; a field that its serializers fail on is a note."""
    failed: list[Exception] = []
    for given in ({"warnings": False, **options}, options, {}):  # an override may take none
        try:
            return value.model_dump(**given)
        except faults() as error:
            failed.append(error)
    kind = type(value)
    is_own = not kind.model_dump.__module__.startswith("pydantic.")  # it may hide what is secret
    names = [*kind.model_fields, *kind.model_computed_fields, *(value.model_extra or ())]
    found: dict[str, Any] = {}
    for name in names:
        try:
            if is_own:
                raise failed[0]
            found.update(value.model_dump(include={name}, warnings=False, **options))
        except faults() as error:
            found[name] = _unreadable(error)
    return found


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except faults() as error:
        return _unreadable(error)


def _unreadable(error: Exception) -> str:
    return Unreadable(f"[unreadable: {type(error).__name__}]")


def _text(value: Any, most: int) -> Any:
    return str(value)


def _nothing(value: Any, most: int) -> None:
    return None


def _array(value: Any, most: int) -> Any:
    """Return an array, a tensor or a column as a list; a large one is flattened and cut."""
    if not hasattr(value, "shape"):
        return str(value)
    total = math.prod(value.shape)
    if total <= most:
        return value.tolist()
    flat = value.reshape(-1) if len(value.shape) > 1 else value
    return _cut(_first(flat, most - 1).tolist(), total)


def _of_numpy(value: Any, most: int) -> Any:
    if value.dtype.names:
        return _records(value, most)
    if value.dtype.kind in "mM":
        if value.dtype.str.endswith(_FINE):  # `tolist` turns nanoseconds into ints
            value = value.astype(f"{value.dtype.kind}8[us]")
        if int in map(type, value.reshape(-1)[:most].tolist()):  # and what Python has no type for
            return _members(value, most) if value.shape else str(value)
    found = _array(value, most)
    if type(found) is not type(value):
        return found
    return float(found) if value.dtype.kind == "f" else str(value)  # `tolist` of a long double


def _fields(value: Any, most: int) -> list[Any]:
    """Return headers as pairs: as text, no value would have its name beside it."""
    return list(value.items())


def _records(value: Any, most: int) -> Any:
    """Return a record with named fields as an object, and an array of them as a list."""
    if not value.shape:
        return {name: value[name] for name in value.dtype.names}
    return _members(value, most)


def _members(value: Any, most: int) -> list[Any]:
    kept = [*islice(value, most)]
    return kept if len(kept) == len(value) else _cut(kept, len(value))


def _series(value: Any, most: int) -> Any:
    if len(value) <= most:
        return value.to_list()
    return _cut(value.head(most - 1).to_list(), len(value))


def _pylist(value: Any, most: int) -> Any:
    if len(value) <= most:
        return value.to_pylist()
    return _cut(value.slice(0, most - 1).to_pylist(), len(value))


def _rows(value: Any, most: int) -> Any:
    """Return a table as a list of its rows, each as a dict."""
    height, width = value.shape
    kept = value.head(max(1, (most - 1) // max(1, width)))
    rows = kept.to_dicts() if hasattr(kept, "to_dicts") else kept.to_dict("records")
    return rows if len(rows) == height else _cut(rows, height)


def _first(column: Any, count: int) -> Any:
    return column.head(count) if hasattr(column, "head") else column[:count]


def _cut(kept: list[Any], total: int) -> list[Any]:
    return [*kept, f"[cut: {total - len(kept)} more items]"]


def _queryset(value: Any, most: int) -> Any:
    """Return the results of a query that has run, else a note; never run it."""
    found = value._result_cache
    return f"[QuerySet of {value.model._meta.label}]" if found is None else list(found)


def _page(value: Any, most: int) -> Any:
    """Return the rows of a paginator's page, whose length and members are queries."""
    return value.object_list


def _model(value: Any, most: int) -> dict[str, Any]:
    """Return the loaded fields of a Django model instance."""
    names = [field.attname for field in type(value)._meta.concrete_fields]
    loaded = vars(value)
    return {name: loaded[name] for name in names if name in loaded}


def _mapped(value: Any, most: int) -> dict[str, Any]:
    """Return the loaded columns of a SQLAlchemy object."""
    loaded = vars(value)
    names: Any = type(value).__mapper__.columns.keys()
    return {name: loaded[name] for name in names if name in loaded}


def _row(value: Any, most: int) -> Any:
    return value._asdict() if callable(getattr(type(value), "_asdict", None)) else UNKNOWN


def _by_keys(value: Any, most: int) -> dict[str, Any]:
    names = value.keys()  # iterating over the row itself yields its values
    return {name: value[name] for name in names}


def _dumped(value: Any, most: int) -> Any:
    return dumped(value) if callable(getattr(type(value), "model_dump", None)) else UNKNOWN


def _dumped_by_pydantic_1(value: Any, most: int) -> Any:
    return value.dict()


def _attrs(value: Any, most: int) -> dict[str, Any]:
    return attributes(value, [field.name for field in type(value).__attrs_attrs__])


def _struct(value: Any, most: int) -> dict[str, Any]:
    return attributes(value, type(value).__struct_fields__)


_Convert = Callable[[Any, int], Any]

# By package and class, for types whose attributes mislead or do not suffice.
_BY_NAME: Mapping[tuple[str, str], _Convert] = {
    ("unittest", "NonCallableMock"): _text,  # a mock has every attribute
    ("mock", "NonCallableMock"): _text,
    ("pandas", "NAType"): _nothing,
    ("numpy", "ndarray"): _of_numpy,
    ("numpy", "generic"): _of_numpy,
    ("pandas", "DataFrame"): _rows,
    ("polars", "DataFrame"): _rows,
    ("polars", "Series"): _series,
    ("django", "QuerySet"): _queryset,
    ("django", "Page"): _page,
    ("django", "Model"): _model,
    ("werkzeug", "Headers"): _fields,
    ("http", "HTTPMessage"): _fields,
    ("sqlite3", "Row"): _by_keys,
    ("asyncpg", "Record"): _by_keys,
}
# By an attribute of the class; the first match in this order decides.
_BY_ATTRIBUTE: Mapping[str, _Convert] = {
    "model_dump": _dumped,
    "__fields_set__": _dumped_by_pydantic_1,
    "__attrs_attrs__": _attrs,
    "__struct_fields__": _struct,
    "__mapper__": _mapped,
    "_asdict": _row,
    "tolist": _array,
    "to_pylist": _pylist,  # pyarrow's
}
