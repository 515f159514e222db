"""
The JSON Schema of a typed event's properties, in the form in which they are sent.

msgspec generates it for its own classes, and pydantic for all others. A field of a type unknown
to both may be anything.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import typing
import warnings

from typing import TYPE_CHECKING, Any

from .schema import resolve
from .typed import Declaration


if TYPE_CHECKING:
    from pydantic.json_schema import GenerateJsonSchema

__all__ = ["schema_of"]


def schema_of(declaration: Declaration) -> dict[str, Any]:
    """
    Return the JSON Schema (2020-12) of the fields of *declaration*, with its ``$defs``.

    Raises ``ImportError`` if pydantic is not installed, and ``TypeError`` for a function without
    an annotated return type.
    """
    kind = declaration.fields_class
    if kind is None:
        raise TypeError(f"{declaration.kind.__qualname__} does not say which TypedDict it returns")
    if hasattr(kind, "__struct_fields__"):
        found = _by_msgspec(kind)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about fields that shadow attributes of pydantic's
            found = _by_pydantic(declaration, kind)
    schema = {"type": "object", "properties": {}, **resolve(found, found)}
    schema.pop("$defs", None)
    if '"$ref"' in json.dumps(schema):
        schema["$defs"] = found["$defs"]
    return schema


def _by_msgspec(kind: Any) -> dict[str, Any]:
    """Return the schema of the fields by name: without the tag, and not as an array."""
    import msgspec  # must be installed, as the class is made with it

    found: dict[str, Any] = msgspec.json.schema(kind)
    schema = {**resolve(found, found), "$defs": found["$defs"]}
    fields = msgspec.structs.fields(kind)
    names = [field.encode_name for field in fields]
    if schema.pop("type") == "array":  # `array_like`, where the tag is the first item
        described = schema.pop("prefixItems", [])
        properties = dict(zip(names[::-1], described[::-1], strict=False))
        schema.pop("minItems", None)
        if schema.pop("maxItems", None) is not None:  # unknown fields are forbidden
            schema["additionalProperties"] = False
    else:
        properties = schema["properties"]
    schema["properties"] = {name: properties[name] for name in names}
    schema["required"] = [field.encode_name for field in fields if field.required]
    return schema


def _by_pydantic(declaration: Declaration, kind: Any) -> dict[str, Any]:
    """Return the schema of the class; if pydantic cannot read it, of its fields one by one."""
    if _is_whole(kind):
        try:
            return _described(kind)
        except ImportError:
            raise
        except Exception:
            pass  # a field of an unknown type, or `typing.TypedDict` before Python 3.12
    return _described(_model(declaration, kind))


def _described(kind: Any, **more: Any) -> dict[str, Any]:
    import pydantic

    adapter: Any = pydantic.TypeAdapter(kind, **more)
    found: dict[str, Any] = adapter.json_schema(
        mode="serialization", schema_generator=_generator()
    )
    return found


def _generator() -> type[GenerateJsonSchema]:
    """Return a schema generator that describes values in the form that `jsonable` writes."""
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def timedelta_schema(self, schema: Any) -> Any:
            return {"type": "number"}

        def decimal_schema(self, schema: Any) -> Any:
            return {"anyOf": [{"type": "number"}, {"type": "string"}]}

        fraction_schema = decimal_schema

        def enum_schema(self, schema: Any) -> Any:
            if issubclass(schema["cls"], enum.Flag):  # its members can be combined
                return {"type": "integer"}
            return super().enum_schema(schema)

        def bytes_schema(self, schema: Any) -> Any:
            return {"type": "string"}

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
            return {}

    return Generator


def _model(declaration: Declaration, kind: Any) -> Any:
    """Return a pydantic model with the fields of *kind*."""
    import pydantic

    loose = pydantic.ConfigDict(arbitrary_types_allowed=True)
    defaults = _defaults(kind)
    fields: Any = {
        name: (_known(_bare(hint), loose), defaults.get(name, ...))
        for name, hint in declaration.hints.items()
        if not name.startswith("_")
    }
    return pydantic.create_model(kind.__name__, __config__=loose, **fields)


def _bare(hint: Any) -> Any:
    """Return the type of a TypedDict's field without ``Required`` or ``NotRequired``."""
    marked = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
    return typing.get_args(hint)[0] if marked else hint


def _known(hint: Any, loose: Any) -> Any:
    """Return *hint* if pydantic knows the type, else ``Any``."""
    if isinstance(hint, str):
        return Any
    for more in ({"config": loose}, {}):  # a class with a configuration of its own takes none
        try:
            _described(hint, **more)
        except Exception:
            continue
        return hint
    return Any


def _is_whole(kind: Any) -> bool:
    """Return whether pydantic can read *kind* as a whole: dataclass, model or TypedDict."""
    return (
        dataclasses.is_dataclass(kind)
        or hasattr(kind, "model_fields")
        or hasattr(kind, "__required_keys__")
    )


def _defaults(kind: Any) -> dict[str, Any]:
    """Return the names of the optional fields, each with None as its default."""
    names = [
        *getattr(kind, "_field_defaults", ()),
        *getattr(kind, "__optional_keys__", ()),
        *(
            field.name
            for field in getattr(kind, "__attrs_attrs__", ())
            if not repr(field.default).endswith("NOTHING")
        ),
    ]
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        given = field.default, field.default_factory
        if any(default is not dataclasses.MISSING for default in given):
            names.append(field.name)
    return dict.fromkeys(names)
