"""
What values of other libraries are in JSON, by their own verbs and without importing them.

Nothing here evaluates a query or loads what was not loaded yet.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Mapping
from typing import Any


__all__ = ["UNKNOWN", "attributes", "form_of"]

#: The form of what is nobody's that is known here.
UNKNOWN = object()

# The units of numpy's times that Python's have no room for.
_FINE = ("[ns]", "[ps]", "[fs]", "[as]")


def form_of(value: Any, most: int) -> Any:
    """Return another value that says the same as *value*, `UNKNOWN` where there is none."""
    kind = type(value)
    for base in kind.__mro__:
        convert = _BY_NAME.get((str(base.__module__).partition(".")[0], base.__name__))
        if convert is not None:
            return convert(value, most)
    for name, ask in _BY_ATTRIBUTE.items():
        if hasattr(kind, name):
            return ask(value, most)
    return UNKNOWN


def attributes(value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the attributes *names* of *value*; one that is not there, or raises, says so."""
    return {name: _attribute(value, name) for name in names}


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except Exception as error:
        return f"[unreadable: {type(error).__name__}]"


def _text(value: Any, most: int) -> Any:
    return str(value)


def _nothing(value: Any, most: int) -> None:
    return None


def _array(value: Any, most: int) -> Any:
    """Return an array, a tensor or a column as a list; a large one flat, cut and saying so."""
    if not hasattr(value, "shape"):
        return str(value)
    total = math.prod(value.shape)
    if total <= most:
        return value.tolist()
    flat = value.reshape(-1) if len(value.shape) > 1 else value
    return _cut(_first(flat, most - 1).tolist(), total)


def _of_numpy(value: Any, most: int) -> Any:
    if value.dtype.kind in "mM" and value.dtype.str.endswith(_FINE):
        value = value.astype(f"{value.dtype.kind}8[us]")  # of nanoseconds, it makes integers
    found = _array(value, most)
    if type(found) is not type(value):
        return found
    return float(found) if value.dtype.kind == "f" else str(value)  # a long double


def _series(value: Any, most: int) -> Any:
    if len(value) <= most:
        return value.to_list()
    return _cut(value.head(most - 1).to_list(), len(value))


def _pylist(value: Any, most: int) -> Any:
    if len(value) <= most:
        return value.to_pylist()
    return _cut(value.slice(0, most - 1).to_pylist(), len(value))


def _rows(value: Any, most: int) -> Any:
    """Return a table as the list of its rows, each an object."""
    height, width = value.shape
    kept = value.head(max(1, (most - 1) // max(1, width)))
    rows = kept.to_dicts() if hasattr(kept, "to_dicts") else kept.to_dict("records")
    return rows if len(rows) == height else _cut(rows, height)


def _first(column: Any, count: int) -> Any:
    return column.head(count) if hasattr(column, "head") else column[:count]


def _cut(kept: list[Any], total: int) -> list[Any]:
    return [*kept, f"[cut: {total - len(kept)} more items]"]


def _queryset(value: Any, most: int) -> Any:
    """Return what a query has brought already; else its model, as to ask is not ours to do."""
    found = value._result_cache
    return f"[QuerySet of {value.model._meta.label}]" if found is None else list(found)


def _model(value: Any, most: int) -> dict[str, Any]:
    """Return the fields of one of Django's models that are loaded."""
    names = [field.attname for field in type(value)._meta.concrete_fields]
    loaded = vars(value)
    return {name: loaded[name] for name in names if name in loaded}


def _mapped(value: Any, most: int) -> dict[str, Any]:
    """Return the columns of one of SQLAlchemy's objects that are loaded."""
    loaded = vars(value)
    names: Any = type(value).__mapper__.columns.keys()
    return {name: loaded[name] for name in names if name in loaded}


def _row(value: Any, most: int) -> Any:
    return value._asdict() if callable(getattr(type(value), "_asdict", None)) else UNKNOWN


def _by_keys(value: Any, most: int) -> dict[str, Any]:
    names = value.keys()  # to iterate over it would give the values
    return {name: value[name] for name in names}


def _dumped(value: Any, most: int) -> Any:
    return value.model_dump() if callable(getattr(type(value), "model_dump", None)) else UNKNOWN


def _dumped_by_pydantic_1(value: Any, most: int) -> Any:
    return value.dict()


def _attrs(value: Any, most: int) -> dict[str, Any]:
    return attributes(value, [field.name for field in type(value).__attrs_attrs__])


def _struct(value: Any, most: int) -> dict[str, Any]:
    return attributes(value, type(value).__struct_fields__)


_Convert = Callable[[Any, int], Any]

# By package and class, where verbs would do harm or do not suffice.
_BY_NAME: Mapping[tuple[str, str], _Convert] = {
    ("unittest", "NonCallableMock"): _text,  # has every verb there is
    ("mock", "NonCallableMock"): _text,
    ("pandas", "NAType"): _nothing,
    ("numpy", "ndarray"): _of_numpy,
    ("numpy", "generic"): _of_numpy,
    ("pandas", "DataFrame"): _rows,
    ("polars", "DataFrame"): _rows,
    ("polars", "Series"): _series,
    ("django", "QuerySet"): _queryset,
    ("django", "Model"): _model,
    ("sqlite3", "Row"): _by_keys,
    ("asyncpg", "Record"): _by_keys,
}
# By what the class has, in this order.
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
