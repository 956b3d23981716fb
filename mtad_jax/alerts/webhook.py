"""Events sent to a URL, one POST of JSON each, with retries; what could not be delivered stays pending.

An event is noted as told after the answer, so that a kill in between sends it once more: the header Idempotency-Key,
the same in every try, lets the receiver see that.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from mtad_jax.alerts.delivered import Delivered, event_key
from mtad_jax.alerts.told_event import ToldEvent, as_json

LONGEST_WAIT_S = 60.0  # between two tries
_WORTH_RETRYING = (408, 429)  # beside 5xx and no answer at all


class Patience(NamedTuple):
  """attempts: tries of one event. timeout_s: to connect, and between two bytes of an answer.

  first_wait_s: before the second try; doubled before each further one, up to `LONGEST_WAIT_S`.
  """

  attempts: int = 5
  timeout_s: float = 10.0
  first_wait_s: float = 1.0


class Sent(NamedTuple):
  """delivered: events accepted now. pending: those not delivered. reason: why the first of these was not."""

  delivered: int
  pending: int
  reason: str


def place_of(url: str) -> str:
  """Returns a URL's scheme and host: the rest may hold a secret."""
  parts = urlsplit(url)
  return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def check_url(url: str) -> None:
  """Raises ValueError where the URL is none that can be posted to."""
  parts = urlsplit(url)
  if parts.scheme not in ("http", "https") or not parts.hostname:
    raise ValueError(f"--webhook: {parts.scheme or 'no scheme'}: an http:// or https:// URL with a host is wanted")


def _post(url: str, event: ToldEvent, timeout_s: float) -> tuple[str, bool, float]:
  """Returns (why the event was not accepted, "" if it was; whether to try again; seconds the server asks to wait)."""
  headers = {"Idempotency-Key": event_key(event)}
  try:
    # a redirect would turn the POST into a GET, which delivers nothing
    answer = requests.post(url, json=as_json(event), headers=headers, timeout=timeout_s, allow_redirects=False)
  except requests.RequestException as error:  # its text would hold the URL
    return f"no answer ({type(error).__name__})", True, 0.0
  if 200 <= answer.status_code < 300:
    return "", False, 0.0
  asked = answer.headers.get("Retry-After", "")
  again = answer.status_code >= 500 or answer.status_code in _WORTH_RETRYING
  return f"answer {answer.status_code}", again, float(asked) if asked.isdigit() else 0.0


def send_events(
  url: str,
  events: Sequence[ToldEvent],
  told: Delivered,
  patience: Patience,
  sleep: Callable[[float], None] = time.sleep,
) -> Sent:
  """Returns what became of the events that were not told yet; each that is accepted is noted at once, on disk.

  An event that is refused (an answer that no second try will change) stays pending, and the next is sent; where there
  is no good answer after all tries, the server is down, and the rest is left for the next run.

  Args:
    told: what the URL was told already. sleep: for tests.
  """
  waiting = [event for event in events if not told.knows(event)]
  told.save()  # events that go on were followed to their new ends
  delivered, failed, reason = 0, 0, ""
  for index, event in enumerate(waiting):
    for attempt in range(patience.attempts):
      why, again, asked_s = _post(url, event, patience.timeout_s)
      if not again or attempt == patience.attempts - 1:
        break
      sleep(min(max(patience.first_wait_s * 2**attempt, asked_s), LONGEST_WAIT_S))
    if not why:
      told.add(event)
      told.save()
      delivered += 1
      continue
    failed += 1
    tries = f" after {patience.attempts} tries" if again else ""
    reason = reason or f"event {event.event_id}: {why}{tries}"
    if again:
      failed += len(waiting) - index - 1
      break
  return Sent(delivered, failed, reason)
