"""What the probe is measured against: a classifier of outside signals, and a list of canned texts.

Neither ever abstains. ``http_lexical_timing`` is fitted, each family by all *other* families of the same bench, whose
truth it is told (leave one family out); the probe itself fits nothing on the bench.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from probe.evidence.case import normalised
from probe.lab.bench.features import Array, features
from probe.lab.bench.metrics import Unit
from probe.lab.bench.truth import Labelled
from probe.resources import data_folder
from probe.wire.catalogue import load_backend

PENALTY = 1.0
"""Weight of half the squared coefficients against the summed log-loss of the standardised features."""

COMMON = (
    "I'm sorry, but I can't assist with that request.",
    "I'm sorry, but I can't assist with that.",
    "I'm sorry, but I can't help with that.",
    "I'm sorry, I can't help with that.",
    "I can't assist with that request.",
    "I cannot assist with that request.",
    "Sorry, I can't help with that.",
    "I'm unable to help with that request.",
    "I'm sorry, I cannot fulfill that request.",
    "Your request was blocked by our content policy.",
    "This request violates our usage policy.",
)
"""Refusals of the kind that guardrails are set up with, beside those whose source the catalogue knows."""


def http_lexical_timing(answers: Sequence[Labelled]) -> list[Unit]:
    """Predict each family by logistic regression on all others, at a threshold of one half.

    Where the others hold one author only, that author is predicted with their share.
    """
    table = features([(one.sent, one.controls) for one in answers])
    truth = np.array([one.unit.author == "platform" for one in answers], float)
    families = [one.unit.family for one in answers]
    predicted = leave_one_out(table, truth, families)
    return [_guess(one.unit, float(p)) for one, p in zip(answers, predicted, strict=True)]


def leave_one_out(table: Array, truth: Array, groups: Sequence[str]) -> Array:
    """Return P(truth = 1) per row, by coefficients that were fitted on the rows of all other groups."""
    names, predicted = np.array(groups, dtype=object), np.full(len(truth), 0.5)
    for group in sorted(set(groups)):
        out = names == group
        if not (~out).any():
            continue
        middle, spread = table[~out].mean(axis=0), table[~out].std(axis=0)
        spread[spread < 1e-9] = np.inf  # what never varied tells nothing
        weights = fit((table[~out] - middle) / spread, truth[~out])
        predicted[out] = expit(_with_one((table[out] - middle) / spread) @ weights)
    return predicted


def fit(table: Array, truth: Array, penalty: float = PENALTY) -> Array:
    """Return the coefficients of an L2-penalised logistic regression, the intercept (not penalised) last."""
    rows = _with_one(table)
    held = np.full(rows.shape[1], penalty)
    held[-1] = 0.0

    def loss(weights: Array) -> tuple[float, Array]:
        score = rows @ weights
        value = np.logaddexp(0.0, score).sum() - truth @ score + 0.5 * held @ weights**2
        return float(value), rows.T @ (expit(score) - truth) + held * weights

    found = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return np.asarray(found.x)


def _with_one(table: Array) -> Array:
    return np.column_stack([table, np.ones(len(table))])


def canned_strings(answers: Sequence[Labelled]) -> list[Unit]:
    """Say ``platform`` where a signature declares it or the text holds a known canned one, else ``model``."""
    found = []
    for one in answers:
        case = one.sent.case
        author = next((match.author for match in case.matches if match.author != "unknown"), None)
        text = normalised(case.text).casefold()
        hit = author == "platform" or (author is None and any(canned in text for canned in known_texts()))
        found.append(_guess(one.unit, float(hit)))
    return found


@cache
def known_texts() -> tuple[str, ...]:
    """Return the canned texts of the catalogue and the common ones, as they are compared."""
    backends = [load_backend(path.stem) for path in sorted(data_folder("backends").glob("*.toml"))]
    texts = {canned.text for backend in backends for canned in backend.canned} | set(COMMON)
    return tuple(sorted(normalised(text).casefold() for text in texts))


def _guess(unit: Unit, probability: float) -> Unit:
    who = "platform" if probability >= 0.5 else "model"
    return replace(unit, verdict=who, probability=probability, mechanism=None, decider=None)


BASELINES: Mapping[str, Callable[[Sequence[Labelled]], list[Unit]]] = {
    "http_lexical_timing": http_lexical_timing,
    "canned_strings": canned_strings,
}
