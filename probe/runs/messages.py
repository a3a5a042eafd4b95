"""What a run says about a route that goes on no further: which, what the provider answered, and what to do."""

import datetime as dt
from collections.abc import Mapping

from probe.config import Route
from probe.errors import CredentialError, ModelError, RouteError, UnreachableError
from probe.runs.answers import Classified, Reason

REASONS: Mapping[Reason, str] = {
    "rate_limited": "turned away by a rate limit",
    "daily_limit": "wait for the next day's limit",
    "overloaded": "met a server that failed or was overloaded",
    "unreachable": "found no connection",
    "dns": "found no such host",
    "tls": "found no encrypted connection",
    "budget": "wait for a larger budget",
    "interrupted": "were interrupted",
    "stopped": "wait because their route stopped",
    "credit": "met an account without credit",
    "timeout": "got no answer in time, and may have been billed",
    "reset": "were sent and never answered, and may have been billed",
    "key_refused": "met a refused key",
    "unknown_model": "asked for a model that is not there",
    "region": "were refused in this region",
    "account": "were refused to this account",
    "bad_request": "were not understood by their route",
    "malformed": "got something that is no answer",
}
"""What each reason means of trials, to be said after their number."""

_SINGULAR = {"were": "was", "wait": "waits"}

AGAIN = "`probe run --again`"

_STOPS: Mapping[Reason, tuple[type[RouteError], str]] = {
    "key_refused": (CredentialError, "refused its key {status}: check the value of {key}, then {again}."),
    "unknown_model": (
        ModelError,
        "does not know the model {model} {status}: `probe routes --check` lists what it has; correct it in probe.toml.",
    ),
    "credit": (
        CredentialError,
        "has no credit left {status}: add credit with the provider, then `probe run` goes on.",
    ),
    "region": (
        RouteError,
        "refuses requests from this region {status}: run it where the provider allows it, then {again}.",
    ),
    "account": (
        CredentialError,
        "refuses this account {status}: see its settings there (suspension, verification, data policy), then {again}.",
    ),
}


def stop_error(route: Route, found: Classified) -> RouteError:
    """Return the error for a route whose trials cannot be answered."""
    kind, what = _STOPS.get(found.reason, (RouteError, "cannot be used {status}: see what it said, then {again}."))
    if found.status is not None and found.status < 400:
        return RouteError(
            f"Route {route.name!r} sends its requests elsewhere (HTTP {found.status}), and no key is taken there: "
            f"write its present address into probe.toml, instead of {route.url}, then {AGAIN}."
        )
    if found.url_wrong:
        kind, what = RouteError, "has nothing at its address {url} {status}: check its url in probe.toml."
    sentence = what.format(
        status=f"(HTTP {found.status})",
        key=route.key_env or "its key variable",
        model=repr(route.model),
        url=route.url,
        again=AGAIN,
    )
    return kind(f"Route {route.name!r} {sentence}{_said(found.words)}")


def bad_requests_error(route: Route, found: Classified, count: int) -> RouteError:
    """Return the error for a route that took none of its first requests."""
    return RouteError(
        f"Route {route.name!r} understood none of its first {count} requests (HTTP {found.status}): change its request "
        f"options or its model in probe.toml, then {AGAIN}.{_said(found.words)}"
    )


def unreachable_error(route: Route, found: Classified) -> UnreachableError:
    """Return the error for a route that was never reached in this start."""
    words = found.words.rstrip(".")
    return UnreachableError(
        f"Route {route.name!r} cannot be reached at {route.url}: {words}. Check the address and the network; "
        "`probe run` goes on from here."
    )


def given_up_error(sentence: str, found: Classified) -> UnreachableError:
    """Return the error for a route that kept failing; ``sentence`` is its pace's, ``found`` the last failure."""
    status = f" (HTTP {found.status})" if found.status else ""
    words = f" The last failure{status}: “{found.words}”" if found.words else ""
    return UnreachableError(f"{sentence}{words}")


def day_note(route: Route, until: float) -> str:
    """Return the note for a route that may send nothing more today."""
    return (
        f"Route {route.name!r} has reached its limit for today: `probe run` again after {_utc(until)}, or use --wait."
    )


def sleeps_until(until: float) -> str:
    """Return what a route that waits for the next day does."""
    return f"sleeps until {_utc(until)}"


def _utc(unix: float) -> str:
    return f"{dt.datetime.fromtimestamp(unix, dt.UTC):%Y-%m-%d %H:%M} UTC"


def in_flight_line(count: int) -> str:
    """Return the line about requests that were under way when an earlier start was killed."""
    one = count == 1
    return (
        f"{count} request{'' if one else 's'} {'was' if one else 'were'} under way when the last run ended; "
        f"{'it' if one else 'they'} may have been billed, count{'s' if one else ''} as spent, and "
        f"{'is' if one else 'are'} sent again."
    )


def without_answer(reason: str, count: int) -> str:
    """Return how many trials have no answer for a reason, in words; an unknown reason is that nobody tried them."""
    meaning = REASONS.get(reason, "were not sent")  # type: ignore[call-overload]
    if count == 1:
        verb, _, rest = meaning.partition(" ")
        meaning = f"{_SINGULAR.get(verb, verb)} {rest}".replace("their route", "its route")
    return f"{count} {meaning}"


def said(found: Classified) -> str:
    """Return status and words of what was no answer; empty where there are none."""
    status = f"HTTP {found.status}" if found.status else ""
    words = f"“{found.words}”" if found.words else ""
    return f"{status} {words}".strip()


def _said(words: str) -> str:
    return f" It said: “{words}”" if words else ""
