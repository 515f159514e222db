"""What an exception becomes: the scenarios of sdk-specs that apply to a server, and bad input."""

from __future__ import annotations

import builtins
import importlib
import json
import logging
import logging.handlers
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import traceback
import zipfile

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_logging.errors import exception_list as exceptions
from posthog_logging.errors.exception_list import (
    CONTEXT_FREE,
    LOGGER,
    MANUAL,
    OWNED,
    STRUCTLOG,
    SYS_EXCEPTHOOK,
    TASK,
    THREAD_EXCEPTHOOK,
    Boundary,
    exception_from_text,
    exception_properties,
    mechanism,
    middleware,
    normalise_level,
    without_owned,
)
from posthog_logging.errors.frames import is_in_app
from posthog_logging.errors.limits import Bucket, RateLimit
from posthog_logging.events import jsonable
from posthog_logging.events.exc_info import normalise_exc_info


class WrapperError(Exception):
    """Raised from another one."""


class Many(Exception):
    """A group as any Python and any library may have it: exceptions under `exceptions`."""

    def __init__(self, members: Any) -> None:
        super().__init__("many")
        self.exceptions = members


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return *error* with a traceback of three frames: main, handler, boom."""

    def main() -> None:
        handler()

    def handler() -> None:
        boom()

    def boom() -> None:
        if cause is not None:
            raise error from cause
        raise error

    try:
        main()
    except BaseException as caught:
        return caught
    raise AssertionError("unreachable")


def entries(error: Any, *args: Any, **options: Any) -> list[dict[str, Any]]:
    """Return the list of *error*, as it is after a trip over the wire."""
    properties = exception_properties(error, *args, **options)
    found: list[dict[str, Any]] = json.loads(jsonable.encode(properties))["$exception_list"]
    return found


def frames(error: Any, **options: Any) -> list[dict[str, Any]]:
    """Return the outermost exception's frames."""
    found: list[dict[str, Any]] = entries(error, **options)[0]["stacktrace"]["frames"]
    return found


def edges(error: Any) -> list[tuple[Any, ...]]:
    """Return the tree as (type, id, parent, relation)."""
    return [
        (e["type"], m["exception_id"], m.get("parent_id"), m.get("source"))
        for e in entries(error)
        for m in [e["mechanism"]]
    ]


def imported(folder: Path, source: str, name: str) -> Any:
    """Return the module *name* made of *source*, imported from *folder*."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return loaded(str(folder), name)


def loaded(place: str, name: str) -> Any:
    """Return the module *name*, imported from *place* and forgotten again."""
    sys.path.insert(0, place)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    finally:
        sys.path.remove(place)
        sys.modules.pop(name, None)


def nulls(value: Any) -> Iterator[Any]:
    """Yield every null in *value*."""
    if value is None:
        yield value
    inside = list(value.values()) if isinstance(value, dict) else value
    for member in inside if isinstance(inside, list) else ():
        yield from nulls(member)


class TestCaptureException:
    """The feature ``capture-exception``, scenario by scenario (wire notes, 5.13)."""

    def test_handled(self) -> None:
        """Capturing a handled exception emits an exception event: type, message and stack."""
        properties = exception_properties(raised(TypeError("boom")))

        assert "TypeError" == properties["$exception_type"]
        assert "boom" == properties["$exception_message"]
        assert properties["$exception_list"][0]["stacktrace"]["frames"]

    def test_caller_properties(self) -> None:
        """Exception capture includes caller properties: those that are not ours pass."""
        given = {"handled": True, "area": "checkout"}

        assert given == without_owned(given)

    @pytest.mark.parametrize(
        ("value", "message"),
        [("a string", "a string"), (42, "42"), (None, "None"), ({"a": 1}, "{'a': 1}")],
        ids=str,
    )
    def test_non_standard_value(self, value: Any, message: str) -> None:
        """Exception capture normalizes non-standard thrown values, and calls them synthetic."""
        properties = exception_properties(value)

        assert ("Exception", message) == (
            properties["$exception_type"],
            properties["$exception_message"],
        )
        assert properties["$exception_list"][0]["mechanism"]["synthetic"] is True

    def test_frame_order(self) -> None:
        """Frames are ordered entry point first, crash site last."""
        names = [frame["function"] for frame in frames(raised(ValueError()))]

        assert ["raised", "main", "handler", "boom"] == names

    def test_chain_order(self) -> None:
        """Chained exceptions are listed caught-first, root cause last."""
        found = edges(raised(WrapperError(), cause=raised(KeyError(), cause=OSError())))

        assert ["WrapperError", "KeyError", "OSError"] == [edge[0] for edge in found]

    def test_no_chain(self) -> None:
        """An exception without a chain is a single-element list."""
        assert [("ValueError", 0, None, None)] == edges(raised(ValueError()))

    def test_from_none(self) -> None:
        """`raise … from None` has no child, though Python keeps the context."""
        try:
            try:
                raise KeyError
            except KeyError:
                raise ValueError from None
        except ValueError as error:
            caught = error

        assert caught.__context__ is not None
        assert [("ValueError", 0, None, None)] == edges(caught)

    def test_context_arrays(self, tmp_path: Path) -> None:
        """Context arrays are in ascending file order, five lines each side of line 40."""
        lines = [f"x = {number}" for number in range(1, 81)]
        lines[39] = "raise ValueError"
        code = compile("\n".join(lines), str(tmp_path / "forty.py"), "exec")
        (tmp_path / "forty.py").write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(ValueError) as caught:
            exec(code, {"__name__": "forty"})

        frame = frames(caught.value)[-1]

        assert 40 == frame["lineno"]
        assert [f"x = {number}" for number in range(35, 40)] == frame["pre_context"]
        assert "raise ValueError" == frame["context_line"]
        assert [f"x = {number}" for number in range(41, 46)] == frame["post_context"]

    def test_no_source(self) -> None:
        """Frames without source context are valid: the three keys are omitted."""
        with pytest.raises(ZeroDivisionError) as caught:
            exec(compile("1/0", "/nowhere/gone.py", "exec"), {"__name__": "gone"})

        expected = {"platform", "filename", "function", "module", "lineno", "abs_path", "in_app"}
        assert expected == set(frames(caught.value)[-1])

    def test_existing_stack_kept(self) -> None:
        """An existing stack is kept and never replaced by a synthetic one."""
        found = entries(raised(ValueError()), stack=sys._getframe())[0]

        assert "boom" == found["stacktrace"]["frames"][-1]["function"]
        assert found["mechanism"]["synthetic"] is False


class TestMetadata:
    """The feature ``exception-event-metadata``, scenario by scenario (wire notes, 5.14)."""

    @pytest.mark.parametrize("error", [ValueError(), "", None, Many([KeyError()])], ids=repr)
    def test_canonical_list(self, error: Any) -> None:
        """Exception event has a non-empty canonical list: non-empty type, string value."""
        found = entries(error)

        assert found
        assert all(entry["type"] and isinstance(entry["value"], str) for entry in found)

    def test_context_free(self) -> None:
        """Context-free event assembler emits linkage-only mechanism, and no event metadata."""
        properties = exception_properties(ValueError("x"), CONTEXT_FREE)

        assert {"$exception_list", "$exception_type", "$exception_message"} == set(properties)
        assert {"exception_id": 0} == properties["$exception_list"][0]["mechanism"]

    def test_no_nulls(self) -> None:
        """Known mechanism metadata uses canonical field types, without null placeholders."""
        assert [] == list(nulls(entries(raised(ValueError(), cause=KeyError("x")))))

    def test_six_fields_preserved(self) -> None:
        """Low-level builder preserves supplied mechanism metadata: all six fields."""
        six = {
            "type": "chained",
            "handled": False,
            "source": "inner",
            "synthetic": True,
            "exception_id": 3,
            "parent_id": 1,
        }

        assert six == mechanism(six)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("type", ""),
            ("type", 3),
            ("handled", "yes"),
            ("handled", None),
            ("synthetic", 1),
            ("source", ""),
            ("exception_id", -1),
            ("exception_id", True),
            ("parent_id", "0"),
        ],
    )
    def test_malformed_field(self, field: str, value: Any) -> None:
        """Malformed supplied common fields are omitted safely; valid siblings are kept."""
        sibling = {"source": "cause"} if field != "source" else {"handled": True}
        supplied = {field: value, **sibling, "meta": {"errno": 2}}

        assert {**sibling, "meta": {"errno": 2}} == mechanism(supplied)

    @pytest.mark.parametrize("override", ["", None, 7, True], ids=repr)
    def test_invalid_override(self, override: Any) -> None:
        """Invalid boundary override falls back to the boundary default."""
        found = entries(ValueError(), MANUAL, supplied={"type": override})

        assert "generic" == found[0]["mechanism"]["type"]

    def test_invalid_context_free(self) -> None:
        """Invalid context-free value remains absent."""
        found = entries(ValueError(), CONTEXT_FREE, supplied={"handled": "maybe"})

        assert {"exception_id": 0} == found[0]["mechanism"]

    def test_all_invalid(self) -> None:
        """Empty supplied mechanism becomes linkage-only."""
        supplied = {"type": "", "handled": None, "source": 1, "parent_id": -1, "exception_id": 9}

        found = entries(ValueError(), CONTEXT_FREE, supplied=supplied)

        assert {"exception_id": 0} == found[0]["mechanism"]

    def test_unknown_type_preserved(self) -> None:
        """Unknown integration type is preserved."""
        found = entries(ValueError(), Boundary("error", "carrier-pigeon", True))

        assert "carrier-pigeon" == found[0]["mechanism"]["type"]

    @pytest.mark.parametrize(
        ("boundary", "level", "expected"),
        [
            (MANUAL, None, ("error", "generic", True, None)),
            (LOGGER, "warn", ("warning", "logger", True, "python.logging")),
            (LOGGER, "critical", ("fatal", "logger", True, "python.logging")),
            (LOGGER, logging.CRITICAL, ("fatal", "logger", True, "python.logging")),
            (LOGGER, "shiny", (None, "logger", True, "python.logging")),
            (STRUCTLOG, "exception", ("error", "logger", True, "structlog.processor")),
            (
                middleware("django.middleware"),
                None,
                ("error", "middleware", False, "django.middleware"),
            ),
            (
                middleware("fastapi.exception_handler", handled=True),
                None,
                ("error", "middleware", True, "fastapi.exception_handler"),
            ),
            (TASK, None, ("error", "task", False, "celery.task_failure")),
            (TASK, "debug", ("debug", "task", False, "celery.task_failure")),
            (
                SYS_EXCEPTHOOK,
                None,
                ("fatal", "onuncaughtexception", False, "python.sys_excepthook"),
            ),
            (
                THREAD_EXCEPTHOOK,
                None,
                ("error", "onuncaughtexception", False, "python.threading_excepthook"),
            ),
        ],
        ids=[
            "Manual capture emits canonical defaults",
            "Logger capture normalizes severity and remains handled",
            "Native critical level is normalized",
            "A fatal logger call remains handled",
            "Unknown source level remains absent",
            "structlog",
            "Framework middleware identifies category and concrete source",
            "Framework handler that consumes a failure is handled",
            "Background task failure",
            "another queue",
            "A terminating failure emits fatal unhandled metadata",
            "Uncaught boundary that may continue",
        ],
    )
    def test_boundary(self, boundary: Boundary, level: Any, expected: tuple[Any, ...]) -> None:
        """Each boundary gives its level, type, handled state and source; unknown is left out."""
        properties = exception_properties(raised(ValueError()), boundary, level=level)
        first = properties["$exception_list"][0]["mechanism"]

        assert expected == (
            properties.get("$exception_level"),
            first["type"],
            first["handled"],
            properties.get("$exception_source"),
        )
        assert (0, False) == (first["exception_id"], first["synthetic"])
        assert {"parent_id", "source"}.isdisjoint(first)
        assert [] == list(nulls(properties))

    def test_nested_handled_unknown(self) -> None:
        """Unknown nested handled state remains absent."""
        found = entries(raised(ValueError(), cause=KeyError()))

        assert "handled" not in found[1]["mechanism"]

    def test_synthesised_stack(self) -> None:
        """Synthesized current stack is marked synthetic, and ends where the caller is."""
        found = entries(ValueError("never raised"), stack=sys._getframe())[0]

        assert found["mechanism"]["synthetic"] is True
        assert "test_synthesised_stack" == found["stacktrace"]["frames"][-1]["function"]

    def test_synthesised_without_logging(self) -> None:
        """A synthesised stack leaves the frames of `logging` at its end out."""
        seen: list[Any] = []

        class Grab(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                frame = sys._getframe(1)  # `Handler.handle`, as a handler of ours would see it
                seen.append(frames("text", stack=frame)[-1]["function"])

        logger = logging.Logger("alone")  # noqa: LOG001 - for this test only
        logger.addHandler(Grab())
        logger.error("hello")

        assert ["test_synthesised_without_logging"] == seen

    def test_no_replacement_stack(self) -> None:
        """Runtime exception without a replacement stack is not synthetic, and has no frames."""
        found = entries(ValueError("never raised"))[0]

        assert found["mechanism"]["synthetic"] is False
        assert "stacktrace" not in found

    def test_unknown_provenance(self) -> None:
        """Unknown synthetic provenance remains absent."""
        assert "synthetic" not in mechanism({"synthetic": None, "type": "generic"})

    def test_wrapped_cause(self) -> None:
        """Wrapped cause records its relationship; the outer exception has none."""
        outer, inner = entries(raised(ValueError(), cause=KeyError()))

        assert "source" not in outer["mechanism"]
        assert ("chained", "cause") == (inner["mechanism"]["type"], inner["mechanism"]["source"])

    def test_context(self) -> None:
        """An implicit context is called context and not cause."""
        try:
            try:
                raise KeyError
            except KeyError:
                raise ValueError  # noqa: B904 - the point of the test
        except ValueError as error:
            caught = error

        assert [("ValueError", 0, None, None), ("KeyError", 1, 0, "context")] == edges(caught)

    def test_members(self) -> None:
        """Aggregate member is not mislabeled as a cause; members keep their order."""
        found = edges(Many([KeyError(), OSError()]))

        assert [
            ("Many", 0, None, None),
            ("KeyError", 1, 0, "member"),
            ("OSError", 2, 0, "member"),
        ] == found

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="ExceptionGroup came with 3.11")
    def test_exception_group(self) -> None:
        """The groups of Python 3.11 are groups, also in each other."""
        group: Any = vars(builtins)["ExceptionGroup"]
        error = group("out", [group("in", [KeyError()]), OSError()])

        assert [
            ("ExceptionGroup", 0, None, None),
            ("ExceptionGroup", 1, 0, "member"),
            ("KeyError", 2, 1, "member"),
            ("OSError", 3, 0, "member"),
        ] == edges(error)

    def test_cause_under_member(self) -> None:
        """Nested cause beneath an aggregate member retains its parent."""
        found = edges(Many([KeyError(), raised(OSError(), cause=ValueError())]))

        assert ("OSError", 2, 0, "member") == found[2]
        assert ("ValueError", 3, 2, "cause") == found[3]

    def test_cause_before_members(self) -> None:
        """A group's cause comes before its members."""
        found = edges(raised(Many([KeyError()]), cause=OSError()))

        assert ["Many", "OSError", "KeyError"] == [edge[0] for edge in found]

    def test_cycle(self) -> None:
        """Cycles are bounded: no exception object is serialized more than once."""
        first, second = ValueError(), KeyError()
        first.__cause__, second.__cause__ = second, first

        assert [("ValueError", 0, None, None), ("KeyError", 1, 0, "cause")] == edges(first)

    def test_oversized(self) -> None:
        """Oversized trees keep the 50 earliest entries in depth-first order."""
        chain: BaseException = ValueError("0")
        for number in range(1, 80):
            outer = ValueError(str(number))
            outer.__cause__ = chain
            chain = outer

        expected = [str(number) for number in range(79, 29, -1)]
        assert expected == [entry["value"] for entry in entries(chain)]

    def test_inspection_budget(self) -> None:
        """Duplicate members consume the inspection budget: the 1,001st member is not read."""
        read = []

        class Counted(list):  # type: ignore[type-arg]
            def __iter__(self) -> Iterator[Any]:
                for member in super().__iter__():
                    read.append(member)
                    yield member

        group = Many(Counted())
        group.exceptions.extend([group] * 1000 + [KeyError()])

        assert [("Many", 0, None, None)] == edges(group)
        assert 1000 == len(read)

    def test_shared_inspection_budget(self) -> None:
        """Nested aggregates share the inspection budget."""
        inner = Many([])
        inner.exceptions.extend([inner] * 999 + [KeyError()])

        assert ["Many", "Many"] == [edge[0] for edge in edges(Many([inner, OSError()]))]

    def test_last_inspected_member(self) -> None:
        """Last inspected member retains its cause."""
        group = Many([])
        group.exceptions.extend([group] * 999 + [raised(KeyError(), cause=OSError())])

        assert [("Many", 0), ("KeyError", 1), ("OSError", 2)] == [e[:2] for e in edges(group)]

    def test_supplied_beats_default(self) -> None:
        """Internal integration metadata overrides its boundary default."""
        supplied = {"type": "signal", "handled": False, "meta": {"signal": 9}}

        found = entries(ValueError(), MANUAL, supplied=supplied)

        assert {**supplied, "synthetic": False, "exception_id": 0} == found[0]["mechanism"]

    def test_property_bag(self) -> None:
        """Application property bag cannot impersonate an integration: owned keys are removed."""
        bag = dict.fromkeys(OWNED, "mine")
        assert {"$exception_list", "$exception_level", "$exception_source"} < set(bag)
        assert "$debug_images" in bag

        properties = {**without_owned({**bag, "area": "x"}), **exception_properties(ValueError())}

        assert "x" == properties["area"]
        assert "error" == properties["$exception_level"]
        assert "$exception_source" not in properties

    def test_processor_owned(self) -> None:
        """What only the processor sets is never sent: no sources, images or handled state."""
        found = set(exception_properties(raised(ValueError()), middleware("django.middleware")))

        assert {"$exception_list", "$exception_level", "$exception_source"} == found & OWNED

    @pytest.mark.parametrize(("given", "kept"), [("mine", True), ("", False), (7, False)])
    def test_fingerprint(self, given: Any, kept: bool) -> None:
        """Explicit custom fingerprint is preserved; one that is none remains absent."""
        properties = exception_properties(ValueError(), fingerprint=given)

        assert kept == (properties.get("$exception_fingerprint") == given)
        assert kept == ("$exception_fingerprint" in properties)

    @pytest.mark.parametrize(
        ("level", "expected"),
        [
            *dict.fromkeys(["fatal", "CRITICAL", "alert", "emergency", 50, 99], "fatal").items(),
            *dict.fromkeys(["error", 40, 45], "error").items(),
            *dict.fromkeys(["warn", " Warning ", 30], "warning").items(),
            *dict.fromkeys(["notice", "info", 20, 25], "info").items(),
            *dict.fromkeys(["trace", "debug", 10, 5], "debug").items(),
            ("log", "log"),
            *dict.fromkeys(["shiny", "", 0, -1, None, True, 2.5], None).items(),
        ],
        ids=repr,
    )
    def test_level(self, level: Any, expected: str | None) -> None:
        """Native severities are normalised; what is not recognised is absent."""
        assert expected == normalise_level(level)


class TestFrames:
    """What one frame says, and whose code it is."""

    def test_module_and_filename(self, tmp_path: Path) -> None:
        """A filename starts at the top package; a module without one is its last part."""
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "__init__.py").write_text("def go(): 1/0\n")
        module = loaded(str(tmp_path), "shop")
        with pytest.raises(ZeroDivisionError) as caught:
            module.go()

        frame = frames(caught.value)[-1]

        assert ("shop", "shop/__init__.py") == (frame["module"], frame["filename"])
        assert str(tmp_path / "shop" / "__init__.py") == frame["abs_path"]

    @pytest.mark.parametrize(
        ("path", "module", "expected"),
        [
            ("/srv/shop/pay.py", "shop.pay", "shop/pay.py"),
            ("/srv/shop/pay/__init__.py", "shop.pay", "shop/pay/__init__.py"),
            ("C:\\srv\\shop\\pay.py", "shop.pay", "shop/pay.py"),
            ("/srv/app.zip/shop/pay.py", "shop.pay", "shop/pay.py"),
            ("/srv/run.py", "__main__", "run.py"),
            ("/srv/elsewhere.py", "shop.pay", "elsewhere.py"),
            ("<frozen runpy>", "runpy", "<frozen runpy>"),
            ("", "", "<unknown>"),
        ],
    )
    def test_filename(self, path: str, module: str, expected: str) -> None:
        """The filename is the path from the top package on; never empty."""
        code = compile("1/0", path, "exec")
        with pytest.raises(ZeroDivisionError) as caught:
            exec(code, {"__name__": module})

        assert expected == frames(caught.value)[-1]["filename"]

    @pytest.mark.parametrize(
        ("path", "module", "expected"),
        [
            ("/srv/app/shop/pay.py", "shop.pay", True),
            ("/srv/app/venv/lib/python3.11/site-packages/x.py", "x", False),
            ("/usr/lib/python3/dist-packages/x.py", "x", False),
            (logging.__file__, "logging", False),
            (os.path.join(sys.prefix, "share", "x.py"), "x", False),
            ("/elsewhere/shop.py", "shop", True),
            ("<frozen importlib._bootstrap>", "importlib._bootstrap", False),
            ("<string>", "dataclasses", False),
            ("<stdin>", "__main__", True),
            (exceptions.__file__, "posthog_logging.errors.exception_list", False),
        ],
    )
    def test_in_app(self, path: str, module: str, expected: bool) -> None:
        """Packages, the standard library, frozen code and this library are not the project's."""
        assert expected is is_in_app(module, path, root="/srv/app")

    def test_root_in_prefix(self) -> None:
        """A project below the interpreter's own folder is a project all the same."""
        root = os.path.join(sys.prefix, "src", "app")

        assert is_in_app("shop", os.path.join(root, "shop.py"), root=root)

    def test_own_rule(self) -> None:
        """A rule of one's own decides; where it raises, the usual one does."""

        def raising(module: str, path: str) -> bool:
            raise KeyError(module)

        error = raised(ValueError())

        assert {False} == {f["in_app"] for f in frames(error, in_app=lambda module, path: False)}
        assert [f["in_app"] for f in frames(error)] == [
            f["in_app"] for f in frames(error, in_app=raising)
        ]

    def test_hidden(self) -> None:
        """Frames that ask to be hidden are left out, and those that only could are not."""

        def outer() -> None:
            __tracebackhide__ = True
            inner()

        def inner() -> None:
            __traceback_hide__ = False
            raise ValueError

        with pytest.raises(ValueError) as caught:
            outer()

        names = [frame["function"] for frame in frames(caught.value)]
        assert ["test_hidden", "inner"] == names

    def test_given_traceback(self) -> None:
        """A traceback that is handed in replaces the outermost exception's own."""
        other = raised(KeyError()).__traceback__

        found = entries(ValueError("x"), traceback=other)

        assert "boom" == found[0]["stacktrace"]["frames"][-1]["function"]

    def test_long_lines(self, tmp_path: Path) -> None:
        """A source line is at most 1,024 bytes, and always a string that says what was cut."""
        source = f"x = '{'é' * 5000}'\ndef go(): 1/0\ny = '{'é' * 5000}'\n"
        with pytest.raises(ZeroDivisionError) as caught:
            imported(tmp_path, source, "long_lines").go()

        frame = frames(caught.value)[-1]

        lines = [*frame["pre_context"], *frame["post_context"]]
        assert 2 == len(lines)
        assert all(1000 < len(line.encode()) <= 1024 for line in lines)
        assert all("[cut: of 500" in line for line in lines)

    def test_event_fits(self, tmp_path: Path) -> None:
        """Fifty deep exceptions with long lines and messages still make an event that fits."""
        body = f"def go(n):\n    if n: return go(n - 1)  # {'x' * 900}\n    1/0  # {'y' * 900}\n"
        module = imported(tmp_path, body, "heavy")
        chain: BaseException | None = None
        for _ in range(50):
            outer: BaseException = ValueError("z" * 1_000_000)
            try:
                module.go(120)
            except ZeroDivisionError as error:
                outer = outer.with_traceback(error.__traceback__)
            outer.__cause__ = chain
            chain = outer

        line = jsonable.encode(exception_properties(chain))

        assert 50 == len(json.loads(line)["$exception_list"])
        assert len(line) < 900 * 1024


class TestSpan:
    """The ids of OpenTelemetry's active span."""

    def test_active(self) -> None:
        """An active span gives its ids, as 32 and 16 hexadecimal digits."""
        trace = pytest.importorskip("opentelemetry.trace")
        context = trace.SpanContext(0xABC, 0xDEF, is_remote=False)
        with trace.use_span(trace.NonRecordingSpan(context)):
            properties = exception_properties(ValueError())

        assert f"{0xABC:032x}" == properties["$trace_id"]
        assert f"{0xDEF:016x}" == properties["$span_id"]

    def test_none(self) -> None:
        """Without an active span there are no ids."""
        pytest.importorskip("opentelemetry.trace")

        assert {"$trace_id", "$span_id"}.isdisjoint(exception_properties(ValueError()))

    def test_not_imported(self) -> None:
        """A program that does not use OpenTelemetry does not get it imported."""
        code = (
            "import sys\n"
            "from posthog_logging.errors.exception_list import exception_properties\n"
            "exception_properties(ValueError()); print('opentelemetry' in sys.modules)"
        )
        said = subprocess.check_output([sys.executable, "-c", code], text=True)

        assert "False" == said.strip()


class Unprintable(Exception):
    """Raises wherever one looks."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")


class TestBadInput:
    """Nothing raises, everything is bounded (issue 8)."""

    def test_str_raises(self) -> None:
        """An exception whose every method raises is still named."""
        found = entries(Unprintable())[0]

        assert ("Unprintable", "[unprintable Unprintable]") == (found["type"], found["value"])

    def test_deep_recursion(self) -> None:
        """Ten thousand frames keep both ends, say how many are missing, and take little time."""

        def deeper(left: int) -> None:
            if left:
                deeper(left - 1)
            raise ValueError

        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(20_000)
        try:
            deeper(10_000)
        except ValueError as error:
            caught = error
        finally:
            sys.setrecursionlimit(limit)
        start = time.perf_counter()
        found = frames(caught)
        taken = time.perf_counter() - start

        assert 100 == len(found)
        assert "test_deep_recursion" == found[0]["function"]
        assert f"[cut: {10_002 - 99} frames]" == found[50]["function"]
        assert found[50]["in_app"] is False
        assert "raise ValueError" == found[-1]["context_line"].strip()
        assert taken < 1

    def test_at_the_limit(self) -> None:
        """What is captured with no stack left is still an event."""

        def deeper() -> dict[str, Any]:
            try:
                return deeper()
            except RecursionError as error:
                return exception_properties(error)

        assert "RecursionError" == deeper()["$exception_type"]

    def test_megabyte_message(self) -> None:
        """A message is at most 8 KiB and says how long it was."""
        value = entries(ValueError("é" * 1_000_000))[0]["value"]

        assert 8000 < len(value.encode()) <= 8192
        assert value.endswith("[cut: of 1000000 characters]")

    def test_surrogates(self) -> None:
        """Lone surrogates and NUL arrive as text that UTF-8 can say."""
        value = entries(ValueError("a\ud800b\0c"))[0]["value"]

        assert "a\ufffdb\ufffdc" == value

    def test_notes(self) -> None:
        """Notes stand below the message, as a traceback prints them."""
        error = ValueError("x")
        error.__notes__ = ["see the manual", 7]  # type: ignore[attr-defined]

        assert "x\nsee the manual" == entries(error)[0]["value"]

    def test_zipped_module(self, tmp_path: Path) -> None:
        """A module in a zip file shows its source, read by its loader."""
        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            archive.writestr("zipped_one.py", "def go():\n    1/0\n")
        with pytest.raises(ZeroDivisionError) as caught:
            loaded(str(tmp_path / "app.zip"), "zipped_one").go()

        frame = frames(caught.value)[-1]

        assert ("zipped_one.py", "    1/0") == (frame["filename"], frame["context_line"])

    def test_frozen_module(self) -> None:
        """Frames of frozen modules are not the project's."""
        with pytest.raises(ModuleNotFoundError) as caught:
            importlib.import_module("no_such_module_anywhere")

        last = frames(caught.value)[-1]

        assert last["filename"].startswith("<frozen")
        assert last["in_app"] is False

    def test_fifo(self, tmp_path: Path) -> None:
        """A source that is a FIFO is never opened: it would block for ever."""
        path = str(tmp_path / "pipe.py")
        os.mkfifo(path)
        with pytest.raises(ZeroDivisionError) as caught:
            exec(compile("1/0", path, "exec"), {"__name__": "pipe", "__loader__": object()})

        assert "context_line" not in frames(caught.value)[-1]

    @pytest.mark.parametrize(
        "content",
        [b"\xff\xfe\n1/0\n", b"# coding: nonsense\n1/0\n", b"#" * 3_000_000 + b"\n1/0\n"],
        ids=["not UTF-8", "unknown coding", "huge"],
    )
    def test_bad_source(self, tmp_path: Path, content: bytes) -> None:
        """A source that cannot or should not be read is left out."""
        path = tmp_path / "bad.py"
        path.write_bytes(content)
        with pytest.raises(ZeroDivisionError) as caught:
            exec(compile("\n1/0", str(path), "exec"), {"__name__": "bad"})

        assert "context_line" not in frames(caught.value)[-1]

    def test_raising_loader(self) -> None:
        """A loader that raises costs the source and nothing else."""

        class Loader:
            def get_source(self, name: str) -> str:
                raise RuntimeError(name)

        names = {"__name__": "loaded", "__loader__": Loader()}
        with pytest.raises(ZeroDivisionError) as caught:
            exec(compile("1/0", "/no/loaded.py", "exec"), names)

        assert "context_line" not in frames(caught.value)[-1]

    def test_odd_types(self) -> None:
        """A class with an impossible name and module still has a name."""
        kind = type("", (Exception,), {"__module__": None})

        found = entries(kind("x"))[0]

        assert "Exception" == found["type"]
        assert "module" not in found

    @pytest.mark.parametrize("members", [7, "abc", [1, None, "x"], {"a": 1}], ids=repr)
    def test_odd_members(self, members: Any) -> None:
        """What only looks like a group has no members."""
        assert [("Many", 0, None, None)] == edges(Many(members))


class Falsy:
    """Cannot say whether it is true, like an array."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


class TestExcInfo:
    """Every ``exc_info`` that a log call may carry."""

    @pytest.mark.parametrize(
        "given",
        [None, False, 0, (), (None, None, None), ("a", 1), "", Falsy(), True, 1, "yes", object()],
        ids=lambda given: type(given).__name__,
    )
    def test_nothing(self, given: Any) -> None:
        """What names no exception, while none is handled, is None."""
        assert normalise_exc_info(given) is None

    def test_exception(self) -> None:
        """An exception comes with its own traceback."""
        error = raised(ValueError())

        assert (error, error.__traceback__) == normalise_exc_info(error)

    @pytest.mark.parametrize("given", [True, 1, "yes"])
    def test_current(self, given: Any) -> None:
        """Anything true is the exception being handled."""
        try:
            raise ValueError
        except ValueError as error:
            expected = (error, error.__traceback__)
            found = normalise_exc_info(given)

        assert expected == found

    @pytest.mark.parametrize("keep", [True, False], ids=["its own", "none"])
    def test_tuple(self, keep: bool) -> None:
        """A tuple's traceback wins; where it has none, it is the exception's."""
        error = raised(ValueError())
        other = raised(KeyError()).__traceback__

        found = normalise_exc_info((ValueError, error, other if keep else None))

        assert (error, other if keep else error.__traceback__) == found

    def test_type_only(self) -> None:
        """A tuple with only a type is that type, made synthetic."""
        found = normalise_exc_info((ValueError, None, None))

        assert (ValueError, None) == found
        assert "ValueError" == exception_properties(ValueError)["$exception_type"]


def text_of(error: BaseException) -> str:
    """Return what `logging` prints of *error*."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


class TestText:
    """What can honestly be said of a traceback that is only text."""

    def test_stock_queue_handler(self) -> None:
        """What a stock QueueHandler leaves names type, value and frames; it is synthetic."""
        waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        logger = logging.Logger("alone")  # noqa: LOG001 - for this test only
        logger.addHandler(logging.handlers.QueueHandler(waiting))
        try:
            raise raised(WrapperError("two\nlines"))
        except WrapperError:
            logger.exception("it failed")
        record = pickle.loads(pickle.dumps(waiting.get_nowait()))

        properties = exception_from_text(record.getMessage(), LOGGER, level=record.levelno)
        first = properties["$exception_list"][0]

        assert ("WrapperError", "two\nlines") == (first["type"], first["value"])
        assert __name__ == first["module"]
        assert {"type": "logger", "handled": True, "synthetic": True, "exception_id": 0} == first[
            "mechanism"
        ]
        assert "stacktrace" not in first
        assert properties["traceback"] in record.getMessage()
        assert "error" == properties["$exception_level"]
        assert [] == list(nulls(properties))

    def test_same_as_alive(self) -> None:
        """Text and exception agree on types, values and relations."""
        error = raised(WrapperError("out"), cause=raised(KeyError("in"), cause=OSError(2, "deep")))

        def parts(found: dict[str, Any]) -> list[Any]:
            return [
                (
                    entry["type"],
                    entry["value"],
                    entry.get("module"),
                    {k: v for k, v in entry["mechanism"].items() if k != "synthetic"},
                )
                for entry in found["$exception_list"]
            ]

        alive = exception_properties(error, LOGGER)
        alive["$exception_list"] = alive["$exception_list"][:2]  # the third one has no traceback
        text = exception_from_text(text_of(error).split("\n\n", 2)[2])

        assert parts(alive) == parts(text)

    def test_context_joint(self) -> None:
        """An exception during the handling of another is its context's parent."""
        try:
            try:
                raise KeyError("in")
            except KeyError:
                raise ValueError("out")  # noqa: B904 - the point of the test
        except ValueError as error:
            found = exception_from_text(text_of(error))["$exception_list"]

        assert ["ValueError", "KeyError"] == [entry["type"] for entry in found]
        assert "context" == found[1]["mechanism"]["source"]

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="ExceptionGroup came with 3.11")
    def test_group(self) -> None:
        """Of a group's text the group itself is told, without its members."""
        group: Any = vars(builtins)["ExceptionGroup"]
        error = raised(group("many", [KeyError(), raised(OSError())]))

        found = exception_from_text(text_of(error))["$exception_list"]

        assert [("ExceptionGroup", "many (2 sub-exceptions)")] == [
            (entry["type"], entry["value"]) for entry in found
        ]

    def test_stack_below(self) -> None:
        """The `stack_info` that a formatter prints below is no part of the message."""
        text = text_of(raised(ValueError("x"))) + "Stack (most recent call last):\n  more"

        assert "x" == exception_from_text(text)["$exception_message"]

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("something failed", "something failed"),
            ("\n\n first \nsecond", "first"),
            ("", ""),
            ("Traceback (most recent call last):", ""),
            ("Traceback (most recent call last):\n???", "???"),
        ],
    )
    def test_no_traceback(self, text: str, value: str) -> None:
        """What is no traceback is an Exception with its first line."""
        found = exception_from_text(text)["$exception_list"][0]

        assert ("Exception", value) == (found["type"], found["value"])

    @pytest.mark.parametrize("given", [None, 7, b"bytes"], ids=repr)
    def test_no_text(self, given: Any) -> None:
        """What is no text at all does not raise."""
        assert "Exception" == exception_from_text(given)["$exception_type"]

    @given(st.lists(st.sampled_from([
        "Traceback (most recent call last):",
        '  File "/srv/a.py", line 3, in go',
        "    1/0",
        "  [Previous line repeated 3 more times]",
        "ValueError: x",
        "",
        "The above exception was the direct cause of the following exception:",
        "  + Exception Group Traceback (most recent call last):",
        "  | ValueError",
        "    +------------",
        "Stack (most recent call last):",
    ]) | st.text(), max_size=30))  # fmt: skip
    def test_any_text(self, lines: list[str]) -> None:
        """Any text is a list of entries with types, values and whole frames."""
        properties = json.loads(jsonable.encode(exception_from_text("\n".join(lines))))

        check(properties)

    def test_huge_text(self) -> None:
        """Of a huge text the end is read: the outermost exception stands there."""
        text = "x\n" * 1_000_000 + text_of(raised(ValueError("end")))

        found = exception_from_text(text)

        assert "end" == found["$exception_message"]
        assert found["traceback"].startswith("[cut: of 200")
        assert found["traceback"].endswith("ValueError: end\n")
        assert len(found["traceback"]) < 33 * 1024


def check(properties: dict[str, Any]) -> None:
    """Assert what must be true of every ``$exception`` event."""
    found = properties["$exception_list"]
    ids = [entry["mechanism"]["exception_id"] for entry in found]

    assert 1 <= len(found) <= 50
    assert list(range(len(found))) == ids
    assert [] == list(nulls(properties))
    for number, entry in enumerate(found):
        assert entry["type"]
        assert isinstance(entry["value"], str)
        assert len(entry["value"].encode()) <= 8192
        assert "thread_id" not in entry
        parent = entry["mechanism"].get("parent_id")
        assert parent is None if number == 0 else parent < number
        for frame in entry.get("stacktrace", {}).get("frames", []):
            assert {"platform", "filename", "function", "in_app"} <= set(frame)
    assert found[0]["type"] == properties["$exception_type"]
    assert found[0]["value"] == properties["$exception_message"]


@st.composite
def graphs(draw: Callable[..., Any]) -> BaseException:
    """Draw some exceptions, and edges between any two of them: causes, contexts, members."""
    number = st.integers(0, 59)
    count = draw(st.integers(1, 60))
    made = [Many([]) if draw(st.booleans()) else ValueError(draw(st.text())) for _ in range(count)]
    nodes = [raised(error) if draw(st.booleans()) else error for error in made]
    edge_lists = st.lists(st.tuples(number, number, st.sampled_from("xcm")), max_size=90)
    for at, to, edge in draw(edge_lists):
        here, there = nodes[at % count], nodes[to % count]
        if edge == "m" and isinstance(here, Many):
            here.exceptions.append(there)
        elif edge == "c":
            here.__cause__ = there
        else:
            here.__context__ = there
    return nodes[0]


@settings(max_examples=60)
@given(graphs())
def test_any_graph(error: BaseException) -> None:
    """Any graph of exceptions is strict JSON: ids in order, parents first, 50 at most, no null."""
    check(jsonable.decode(jsonable.encode(exception_properties(error))))


class TestRateLimit:
    """How many exceptions of a type may go."""

    def test_burst_and_refill(self) -> None:
        """The burst goes at once, then one a second; a long rest gives no more than the burst."""
        limit = RateLimit(burst=3, refill=1.0)

        assert [True] * 3 + [False] == [limit.allow("E", 0) for _ in range(4)]
        assert [False, True, False] == [limit.allow("E", at) for at in (0.9, 1.1, 1.2)]
        assert 3 == sum(limit.allow("E", 1000) for _ in range(10))

    def test_no_drift(self) -> None:
        """Frequent questions do not slow the refill down."""
        limit = RateLimit(burst=1, refill=1.0)

        assert 10 == sum(limit.allow("E", tick / 8) for tick in range(80))

    def test_types_apart(self) -> None:
        """A storm of one type holds no other type back."""
        limit = RateLimit(burst=1, refill=1.0)

        assert [True, False, True] == [limit.allow(name, 0) for name in ("A", "A", "B")]

    def test_clock_set_back(self) -> None:
        """A clock that was set back does not stop the refill."""
        limit = RateLimit(burst=1, refill=1.0)

        assert [True, False, True] == [limit.allow("E", at) for at in (1000, 5, 6.5)]

    def test_bounded_types(self) -> None:
        """Beyond the bound new types share one bucket, until the old ones are full again."""
        limit = RateLimit(burst=1, refill=1.0, most=4)

        storm = sum(limit.allow(f"E{number}", 0) for number in range(1000))

        assert 5 == storm
        assert limit.allow("new", 10)
        assert limit.allow("newer", 10)

    def test_no_refill(self) -> None:
        """Without a refill the burst is all there is."""
        limit = RateLimit(burst=1, refill=0)

        assert [True, False] == [limit.allow("E", at) for at in (0, 10**9)]

    def test_threads(self) -> None:
        """However many threads ask at once, the burst is handed out once."""
        limit = RateLimit(burst=100, refill=1.0)
        allowed: list[bool] = []
        start = threading.Barrier(4)

        def ask() -> None:
            start.wait()
            allowed.extend(limit.allow("E", 0) for _ in range(500))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (100, 2000) == (sum(allowed), len(allowed))

    def test_huge_burst(self) -> None:
        """A burst of any size costs no memory."""
        assert RateLimit(burst=10**30, refill=1e-9).allow("E", 0)


class TestBucket:
    """Windows: so many within each, however they come."""

    def test_windows(self) -> None:
        """Each window begins with the first to come after the last one; refusals are numbered."""
        bucket = Bucket(2, 10.0, 2)

        assert [0, 0, 1, 2] == [bucket.take(100.0) for _ in range(4)]
        assert 3 == bucket.take(109.9)
        assert [0, 0, 1] == [bucket.take(115.0) for _ in range(3)]
        assert [2, 0] == [bucket.take(at) for at in (124.9, 125.0)]

    def test_clock_set_back(self) -> None:
        """A clock that was set back begins a window's length anew."""
        bucket = Bucket(1, 10.0, 1)

        assert [0, 1, 2, 0] == [bucket.take(at) for at in (1000.0, 1001.0, 5.0, 15.0)]

    def test_threads(self) -> None:
        """Threads that come at a window's end together count in one new window."""
        bucket = Bucket(100, 10.0, 100)
        together = threading.Barrier(4)
        passed: list[int] = []

        def draw() -> None:
            for window in range(20):
                together.wait()
                passed.append(sum(bucket.take(window * 10.0) == 0 for _ in range(100)))
                together.wait()

        threads = [threading.Thread(target=draw) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 20 * 100 == sum(passed)
