"""
The JSON Schema of a typed event: of its properties, in the form in which they are sent.

pydantic reads all classes but msgspec's, which msgspec reads. A field of a type that neither
knows may be anything: it is sent as text, or as the fields that it has itself.
"""

from __future__ import annotations

import dataclasses
import json
import typing
import warnings

from typing import TYPE_CHECKING, Any

from .schema import resolve
from .typed import Declaration


if TYPE_CHECKING:
    from pydantic.json_schema import GenerateJsonSchema

__all__ = ["schema_of"]


def schema_of(one: Declaration) -> dict[str, Any]:
    """
    Return the JSON Schema (2020-12) of the fields of *one*, with what it refers to.

    Raises ``ImportError`` where pydantic is not installed, and ``TypeError`` for a function
    that does not say what it returns.
    """
    kind = one.fields_class
    if kind is None:
        raise TypeError(f"{one.kind.__qualname__} does not say which TypedDict it returns")
    if hasattr(kind, "__struct_fields__"):
        import msgspec  # who has such a class has it

        found: dict[str, Any] = msgspec.json.schema(kind)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are also pydantic's
            found = _by_pydantic(one, kind)
    schema = {"type": "object", "properties": {}, **resolve(found, found)}
    schema.pop("$defs", None)
    if '"$ref"' in json.dumps(schema):
        schema["$defs"] = found["$defs"]
    return schema


def _by_pydantic(one: Declaration, kind: Any) -> dict[str, Any]:
    """Return the schema of the class as a whole, else of its fields one by one."""
    if _is_whole(kind):
        try:
            return _described(kind)
        except ImportError:
            raise
        except Exception:
            pass  # of a field's type, or a TypedDict before Python 3.12, it does not know enough
    return _described(_model(one, kind))


def _described(kind: Any, **more: Any) -> dict[str, Any]:
    import pydantic

    adapter: Any = pydantic.TypeAdapter(kind, **more)
    found: dict[str, Any] = adapter.json_schema(
        mode="serialization", schema_generator=_generator()
    )
    return found


def _generator() -> type[GenerateJsonSchema]:
    """Return what describes values as `jsonable` writes them."""
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def timedelta_schema(self, schema: Any) -> Any:
            return {"type": "number"}

        def decimal_schema(self, schema: Any) -> Any:
            return {"anyOf": [{"type": "number"}, {"type": "string"}]}

        def bytes_schema(self, schema: Any) -> Any:
            return {"type": "string"}

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
            return {}

    return Generator


def _model(one: Declaration, kind: Any) -> Any:
    """Return a model of pydantic's with the fields of *kind*."""
    import pydantic

    loose = pydantic.ConfigDict(arbitrary_types_allowed=True)
    defaults = _defaults(kind)
    fields: Any = {
        name: (_known(_bare(hint), loose), defaults.get(name, ...))
        for name, hint in one.hints.items()
        if not name.startswith("_")
    }
    return pydantic.create_model(kind.__name__, __config__=loose, **fields)


def _bare(hint: Any) -> Any:
    """Return the type of a TypedDict's field without the mark that it may be missing."""
    marked = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
    return typing.get_args(hint)[0] if marked else hint


def _known(hint: Any, loose: Any) -> Any:
    """Return a type if pydantic knows it; else any is as good."""
    if isinstance(hint, str):
        return Any
    for more in ({"config": loose}, {}):  # a class with a configuration takes no other
        try:
            _described(hint, **more)
        except Exception:
            continue
        return hint
    return Any


def _is_whole(kind: Any) -> bool:
    """Return whether pydantic reads *kind* itself as an object with fields."""
    return (
        dataclasses.is_dataclass(kind)
        or hasattr(kind, "model_fields")
        or hasattr(kind, "__required_keys__")
    )


def _defaults(kind: Any) -> dict[str, Any]:
    """Return the names of the fields that need not be given, each with a None."""
    names = [
        *getattr(kind, "_field_defaults", ()),
        *getattr(kind, "__optional_keys__", ()),
        *(
            one.name
            for one in getattr(kind, "__attrs_attrs__", ())
            if not repr(one.default).endswith("NOTHING")
        ),
    ]
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        given = field.default, field.default_factory
        if any(one is not dataclasses.MISSING for one in given):
            names.append(field.name)
    return dict.fromkeys(names)
