"""``declared``: the bytes match a signature in the backend catalogue. It needs nothing else, and decides alone.

It decides only where the bytes name one author. Where one declaration names the platform and another one the model, the
response contradicts itself, and both are shown. A text that is known as somebody's canned message is no declaration:
models write such sentences as well.
"""

import math
from collections.abc import Sequence
from typing import Any

from probe.evidence.base import Evidence
from probe.evidence.case import Case
from probe.wire.signatures import CANNED, Match

NAME, VERSION = "declared", "2"

_CERTAIN = 100.0
"""Log-likelihood ratio of a documented declaration: the provider itself says so."""

_KNOWN_TEXT = math.log(3.0)
"""Log-likelihood ratio of a canned text. Nobody has measured how often models write these sentences, so it only tips a
balance: with even odds it leaves a probability of a quarter that the model wrote it."""

NOTHING = "Nothing in the response matches a documented declaration of a block."


def declared(case: Case) -> Evidence:
    """Return what the exchange declares about itself; ``facts["matches"]`` lists all of it.

    A signature that names the model as the author (OpenRouter's ``error_type: refusal``) is decisive for the model; one
    whose bytes do not tell who it was is reported and decides nothing.
    """
    platform = next((match for match in case.matches if match.author == "platform"), None)
    model = next((match for match in case.matches if match.author == "model"), None)
    if platform and model:
        return _contradiction(platform, model, case.matches)
    decider = platform or model
    if decider is not None:
        llr = _CERTAIN if platform else -_CERTAIN
        return Evidence(
            NAME,
            VERSION,
            log_e=max(llr, 0.0),
            llr=llr,
            sentence=decider.sentence,
            facts=_facts(decider, case.matches),
            exhibit=decider.exhibit,
            decisive=True,
            mechanism=decider.mechanism,
            layer=decider.layer,
        )
    if case.matches:
        return _untold(case.matches)
    return Evidence(NAME, VERSION, None, 0.0, NOTHING)


def _contradiction(platform: Match, model: Match, matches: Sequence[Match]) -> Evidence:
    return Evidence(
        NAME,
        VERSION,
        log_e=None,
        llr=0.0,
        sentence=(
            "The response contradicts itself, so neither declaration is taken."
            f" For the platform ({platform.signature}): {platform.sentence}"
            f" For the model ({model.signature}): {model.sentence}"
        ),
        facts={
            "contradiction": [platform.signature, model.signature],
            "sources": [platform.source, model.source],
            "matches": _listed(matches),
        },
        exhibit=f"{platform.exhibit}\n{model.exhibit}",
    )


def _untold(matches: Sequence[Match]) -> Evidence:
    """Report matches that name no author."""
    signs = [match for match in matches if not match.signature.startswith(CANNED)]
    texts = [match for match in matches if match.signature.startswith(CANNED)]
    sentences = [f"{signs[0].sentence} These bytes do not tell who it was."] if signs else []
    if texts:
        sentences.append(f"{texts[0].sentence} Models write such sentences as well.")
    return Evidence(
        NAME,
        VERSION,
        log_e=None,
        llr=_KNOWN_TEXT if texts else 0.0,
        sentence=" ".join(sentences),
        facts=_facts((signs or texts)[0], matches),
        exhibit=(signs or texts)[0].exhibit,
    )


def _facts(first: Match, matches: Sequence[Match]) -> dict[str, Any]:
    return {**first.groups, "signature": first.signature, "source": first.source, "matches": _listed(matches)}


def _listed(matches: Sequence[Match]) -> dict[str, str]:
    """Return what each match says, by its signature."""
    return {match.signature: f"{match.author}, {match.mechanism}, {match.layer}" for match in matches}
