"""``declared``: the bytes match a signature in the backend catalogue. It needs nothing else, and decides alone."""

from probe.evidence.base import Evidence
from probe.evidence.case import Case

NAME, VERSION = "declared", "1"

_CERTAIN = 100.0
"""Log-likelihood ratio of a documented declaration: the provider itself says so."""


def declared(case: Case) -> Evidence:
    """Return what the exchange declares about itself.

    A signature that names the model as the author (OpenRouter's ``error_type: refusal``) is decisive for the model; one
    whose bytes do not tell who it was is reported and decides nothing.
    """
    for author, llr in (("platform", _CERTAIN), ("model", -_CERTAIN)):
        for match in case.matches:
            if match.author == author:
                return Evidence(
                    NAME,
                    VERSION,
                    log_e=max(llr, 0.0),
                    llr=llr,
                    sentence=match.sentence,
                    facts={"signature": match.signature, "source": match.source, **match.groups},
                    exhibit=match.exhibit,
                    decisive=True,
                    mechanism=match.mechanism,
                    layer=match.layer,
                )
    if case.matches:
        match = case.matches[0]
        return Evidence(
            NAME,
            VERSION,
            log_e=None,
            llr=0.0,
            sentence=f"{match.sentence} These bytes do not tell who it was.",
            facts={"signature": match.signature, "source": match.source},
            exhibit=match.exhibit,
        )
    return Evidence(NAME, VERSION, None, 0.0, "Nothing in the response matches a documented declaration of a block.")
