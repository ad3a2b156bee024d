"""What the supervisor knows of its children: the sums of what they counted, and how each of them is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from streamq.worker.metrics import Counters, Vitals

# A child looks at its streams each second, however busy it is.
_FRESH_SECONDS = 5.0
# The supervisor turns twice a second, and may wait for the machine when it starts a child.
_SUPERVISOR_SECONDS = 30.0


@dataclass
class _Known:
    """What is known of one child, and since when."""

    vitals: Vitals | None = None
    at: float = field(default_factory=time.monotonic)
    serving: bool = True


class Tally:
    """Written by the supervisor's own thread; others may ask at any time.

    Attributes:
        counted: the sums over all children there ever were.
        stopping: the worker is to end.
        turned: when the supervisor last looked at everything.
    """

    def __init__(self) -> None:
        self.counted = Counters()
        self.stopping = False
        self.turned = time.monotonic()
        self._known: dict[str, _Known] = {}

    def begun(self, child: str) -> None:
        """Note that a child has begun to work."""
        self._known[child] = _Known()

    def reported(self, child: str, report: dict[str, Any]) -> None:
        """Take the report of a child."""
        for what, of, number in report["counted"]:
            self.counted[what, of] += number
        known = self._known.setdefault(child, _Known())
        known.vitals, known.at = Vitals(**report["vitals"]), time.monotonic()

    def leaves(self, child: str, reason: str) -> None:
        """Note that a child was replaced and only ends what it runs."""
        self._known[child].serving = False
        self.restarted(reason)

    def restarted(self, reason: str) -> None:
        """Count a child that another has replaced."""
        self.counted["child_restarts", reason] += 1

    def ended(self, child: str) -> None:
        """Note that a child has ended."""
        self._known.pop(child, None)

    # ---- what is asked

    def troubles(self) -> list[str]:
        """Say what is wrong with the supervisor and its children; nothing: all is well."""
        found = []
        if (idle := time.monotonic() - self.turned) > _SUPERVISOR_SECONDS:
            found.append(f"the supervisor has done nothing for {idle:.0f} s")
        for name, known in self._known.copy().items():
            vitals = known.vitals
            silent = time.monotonic() - known.at
            if known.serving and not self.stopping and silent > _FRESH_SECONDS:
                found.append(f"{name} has reported nothing for {silent:.0f} s")
            if vitals and vitals.stuck:
                found.append(f"{name} runs {vitals.stuck} tasks past their time limit that cannot be ended")
            if vitals and vitals.blocked:
                found.append(f"the event loop of {name} has been blocked for {vitals.blocked:.1f} s")
        return found

    def hindrances(self) -> list[str]:
        """Say why no child could take a task at the moment; nothing: one could."""
        if self.stopping:
            return ["the worker is stopping"]
        serving = {name: known for name, known in self._known.copy().items() if known.serving}
        if not serving:
            return ["no child has begun to work"]
        found = []
        for name, known in serving.items():
            silence = self._silence(known)
            if silence is not None and silence <= _FRESH_SECONDS:
                return []
            found.append(f"{name} has not reached Redis" + ("" if silence is None else f" for {silence:.0f} s"))
        return found

    def gauges(self) -> dict[str, float]:
        """Return what can go up and down, of all children together, or of the one that is worst off."""
        every = [(known, known.vitals) for known in self._known.copy().values() if known.vitals]
        serving = [(known, vitals) for known, vitals in every if known.serving]
        silences = [silence for known, _ in serving if (silence := self._silence(known)) is not None]
        return {
            "children": len(serving),
            "running": sum(vitals.running for _, vitals in every),
            "capacity": sum(vitals.capacity for _, vitals in serving),
            "stuck": sum(vitals.stuck for _, vitals in every),
            "lag": max((max(vitals.lag, vitals.blocked) for _, vitals in every), default=0.0),
            "silence": max(silences, default=0.0),
        }

    def _silence(self, known: _Known) -> float | None:
        if known.vitals is None or known.vitals.silence is None:
            return None
        return known.vitals.silence + time.monotonic() - known.at
