"""
`Gate`: what of an event may leave, and in which form.

In this order: is it in the sample, is its person below the ceiling, is it as planned; then
secrets and pseudonyms are replaced. This is after ``before_send``, and before queue, disk and
broker.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Mapping
from typing import Any

from ..events.identifiers import Warn
from ..events.message import Message, Refused
from ..events.pseudonyms import Pseudonyms
from ..events.sampling import Ceiling, Sampler, is_exempt, is_in_sample
from ..events.scrub import Scrubber
from .ledger import Ledger


__all__ = ["Gate"]

Watch = Callable[[Message], None]


class Gate:
    """
    Let events pass.

    Args:
        ledger: counts what was scrubbed.
        scrubber: replaces secrets and pseudonyms; None: nothing is replaced.
        pseudonyms: replaces the event's own ``distinct_id``, too, where that is named.
        sampler: says which share of the people is kept; None: what declarations say.
        ceiling: how much one person may send.
        watch: is shown what is sent.
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
        #: The quick half of `is_plain`, a call of C: only its yes is certain.
        self.is_known: Callable[[Mapping[str, Any]], bool] = (
            bool if scrubber is None else scrubber.harmless.issuperset
        )

    @property
    def wants_messages(self) -> bool:
        """Whether every event must be seen as a whole before the log call returns."""
        given = self._sampler, self._ceiling, self._watch, self._for_person
        return any(one is not None for one in given)

    def is_plain(self, properties: Mapping[str, Any]) -> bool:
        """Return whether no key of an event's names a secret: only its values are left to see."""
        return self.scrubber is None or self.scrubber.is_harmless(properties)

    def may_have_secret(self, chunk: bytes) -> bool:
        """Return whether values in the encoded properties of some events may be secret."""
        return self.scrubber is not None and self.scrubber.may_have_secret(chunk)

    def has_secret(self, rest: bytes) -> bool:
        """Return whether a value in the encoded properties of one event is secret."""
        return self.scrubber is not None and self.scrubber.has_secret(rest)

    def clean(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Return properties without secrets, uncounted: those of the handler itself."""
        found = dict(properties)
        return found if self.scrubber is None else self.scrubber.scrubbed(found)[0]

    def passed(
        self, message: Message, warn: Warn, count: bool = True, rate: float | None = None
    ) -> Message:
        """
        Return *message* as it may leave; raises `Refused` for one that may not.

        Args:
            message: the event, after the hooks.
            warn: is called with what goes wrong on the way.
            count: whether the event counts, for the ledger and for its person's ceiling.
            rate: the share of the people that its declaration keeps.
        """
        message = self._sampled(message, warn, rate)
        if count and self._ceiling is not None and not self._is_below_ceiling(message):
            raise Refused("person_limited")
        if self._watch is not None:
            self._watch(message)
        return self._scrubbed(message, count)

    def _sampled(self, message: Message, warn: Warn, declared: float | None) -> Message:
        if (self._sampler is None and declared is None) or is_exempt(message.event):
            return message
        rate = None if self._sampler is None else self._sampler.rate_of(message._asdict(), warn)
        rate = declared if rate is None else rate
        if rate is None:
            return message
        if not is_in_sample(message.distinct_id, rate):
            raise Refused("sampled")
        return message._replace(properties={**message.properties, "$sample_rate": rate})

    def _is_below_ceiling(self, message: Message) -> bool:
        """Return whether there is room; an event of nobody in particular has no ceiling."""
        if self._ceiling is None or is_exempt(message.event):
            return True
        nobody = message.distinct_id == message.uuid
        return nobody or self._ceiling.allow(message.distinct_id, time.monotonic())

    def _scrubbed(self, message: Message, count: bool) -> Message:
        if self.scrubber is None:
            return message
        properties, scrubbed = self.scrubber.scrubbed(message.properties)
        if scrubbed and count:
            self._ledger.add("scrubbed", scrubbed)
        if self._for_person is not None:
            message = message._replace(distinct_id=self._for_person(message.distinct_id))
        return (
            message
            if properties is message.properties
            else message._replace(properties=properties)
        )
