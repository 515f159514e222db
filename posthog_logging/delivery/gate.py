"""
`Gate`: which events may leave, and in which form.

First come the checks: is the event in the sample, is its person below the ceiling, is it as
planned. Then secrets and pseudonyms are replaced. All this is after ``before_send``, and before
queue, disk and broker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..events.identifiers import LONGEST, Warn, cut
from ..events.message import Message, Refused
from ..events.pseudonyms import Pseudonyms
from ..events.sampling import Ceiling, Sampler, is_exempt, is_in_sample
from ..events.scrub import Scrubber, is_plain_text
from .clock import monotonic
from .ledger import Ledger


__all__ = ["Gate"]

Watch = Callable[[Message], None]


class Gate:
    """
    Let events pass.

    Args:
        ledger: counts what was scrubbed.
        scrubber: replaces secrets and pseudonyms; None: nothing is replaced.
        pseudonyms: replaces the event's own ``distinct_id``, too, if it names that.
        sampler: says which share of the people is kept; None: what typed events declare.
        ceiling: how much one person may send.
        watch: is called with each event that passes.
    """

    def __init__(
        self,
        ledger: Ledger,
        scrubber: Scrubber | None = None,
        pseudonyms: Pseudonyms | None = None,
        sampler: Sampler | None = None,
        ceiling: Ceiling | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._ledger = ledger
        self._sampler = sampler
        self._ceiling = ceiling
        self._watch = watch
        self._for_person = pseudonyms.for_person if pseudonyms is not None else None
        self.scrubber = scrubber
        #: A quick form of `is_plain`, in C: if it returns False, `is_plain` may still be true.
        self.is_known: Callable[[Mapping[str, Any]], bool] = (
            bool if scrubber is None else scrubber.harmless.issuperset
        )

    @property
    def wants_messages(self) -> bool:
        """Whether every event must become a message before the log call returns."""
        given = self._sampler, self._ceiling, self._watch, self._for_person
        return any(one is not None for one in given)

    def is_plain(self, properties: Mapping[str, Any]) -> bool:
        """Return whether no key of *properties* names a secret; values may still be secret."""
        return self.scrubber is None or self.scrubber.is_harmless(properties)

    def may_have_secret(self, chunk: bytes) -> bool:
        """Return whether a value in the encoded properties of several events may be secret."""
        return self.scrubber is not None and self.scrubber.may_have_secret(chunk)

    def has_secret(self, rest: bytes) -> bool:
        """Return whether a value in the encoded properties of one event is secret."""
        return self.scrubber is not None and self.scrubber.has_secret(rest)

    def clean(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return the handler's own *properties* without secrets, which are not counted."""
        found = dict(properties)
        return found if self.scrubber is None else self.scrubber.scrubbed(found)[0]

    def passed(
        self, message: Message, warn: Warn, count: bool = True, rate: float | None = None
    ) -> Message:
        """
        Return *message* as it may leave; raises `Refused` if it may not.

        Args:
            message: the event, after the hooks.
            warn: is called with what goes wrong.
            count: whether the event counts, in the ledger and for its person's ceiling.
            rate: the share of the people that a typed event declares to keep.
        """
        message = self._sampled(message, warn, rate)
        if count and not self._is_below_ceiling(message):
            raise Refused("person_limited")
        if self._watch is not None:
            self._watch(message)
        return self._scrubbed(message, count)

    def _sampled(self, message: Message, warn: Warn, declared: float | None) -> Message:
        if (self._sampler is None and declared is None) or is_exempt(message.event):
            return message
        found = None if self._sampler is None else self._sampler.rate_of(message._asdict(), warn)
        rate = declared if found is None else found
        if rate is None:
            return message
        if not is_in_sample(message.distinct_id, rate):
            raise Refused("sampled")
        return message._replace(properties={**message.properties, "$sample_rate": rate})

    def _is_below_ceiling(self, message: Message) -> bool:
        """Return whether the person may send more; events without a person have no ceiling."""
        if self._ceiling is None or is_exempt(message.event):
            return True
        is_personless = message.distinct_id == message.uuid
        return is_personless or self._ceiling.allow(message.distinct_id, monotonic())

    def _scrubbed(self, message: Message, count: bool) -> Message:
        if self.scrubber is None:
            return message
        properties, scrubbed = self.scrubber.scrubbed(message.properties)
        if not is_plain_text(message.event):
            name, more = self.scrubber.name(message.event)
            message = message._replace(event=cut(name, LONGEST))
            scrubbed += more
        if scrubbed and count:
            self._ledger.add("scrubbed", scrubbed)
        if self._for_person is not None:
            message = message._replace(distinct_id=self._for_person(message.distinct_id))
        if properties is message.properties:
            return message
        return message._replace(properties=properties)
