"""A forest plot of the effects as SVG, written by hand: no library, no script, nothing fetched."""

from collections.abc import Sequence
from html import escape
from math import floor

from probe.attribution.effects.pairs import Effect
from probe.attribution.effects.sentences import points, rate
from probe.stats.intervals import Interval

WIDTH, LEFT, RIGHT = 960, 220, 250
ROW, HEAD, FOOT, GAP = 24, 30, 44, 14
RATE_COLOUR, EFFECT_COLOUR, PLATFORM_COLOUR = "#4a5a6a", "#1f5fa8", "#b3401f"


def forest_plot(effects: Sequence[Effect]) -> str:
    """Draw, per hosted route, both refusal rates, the difference and its two parts, with intervals.

    The axis is per cent and percentage points, from 0 or below to 100. Every row repeats its numbers as text, so that
    the picture says nothing that a reader who cannot see it would miss.
    """
    lowest = _lowest(effects)
    body: list[str] = []
    y = 10
    for effect in effects:
        y = _block(body, effect, y, lowest)
    height = y + FOOT
    level = effects[0].difference.level if effects else 0.95
    axis = _axis(lowest, y, level)
    described = " ".join(_words(effect) for effect in effects) or "There is no effect to show."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="forest-title forest-desc" font-family="system-ui, sans-serif" font-size="13">'
        f'<title id="forest-title">Refusal rates and effects with their intervals</title>'
        f'<desc id="forest-desc">{escape(described)}</desc>{axis}{"".join(body)}</svg>'
    )


Row = tuple[str, Interval, str, str]
"""Label, interval, colour, the numbers in words."""


def _rows(effect: Effect) -> list[Row]:
    return [
        (f"refused by {effect.twin}", effect.refusal_twin, RATE_COLOUR, rate(effect.refusal_twin)),
        (f"refused by {effect.hosted}", effect.refusal_hosted, RATE_COLOUR, rate(effect.refusal_hosted)),
        ("difference", effect.difference, EFFECT_COLOUR, points(effect.difference)),
        ("platform effect", effect.platform_effect, PLATFORM_COLOUR, points(effect.platform_effect)),
        ("serving difference", effect.serving_difference, EFFECT_COLOUR, points(effect.serving_difference)),
    ]


def _words(effect: Effect) -> str:
    if effect.insufficient:
        return f"{effect.hosted}: too few pairs, n = {effect.n_pairs}."
    values = "; ".join(f"{label} {text}" for label, _, _, text in _rows(effect))
    return f"{effect.hosted}, n = {effect.n_pairs}, {effect.n_missing} missing: {values}."


def _lowest(effects: Sequence[Effect]) -> int:
    """Find the left end of the axis: at or below the lowest limit, 0 at most, in steps that keep a tick at 0."""
    limits = [interval.lo for effect in effects if not effect.insufficient for _, interval, _, _ in _rows(effect)]
    return max(floor(100 * min([0.0, *limits]) / 20) * 20, -100)


def _x(value: float, lowest: int) -> float:
    """Map a fraction to the horizontal position."""
    return round(LEFT + (100 * value - lowest) / (100 - lowest) * (WIDTH - LEFT - RIGHT), 1)


def _axis(lowest: int, bottom: int, level: float) -> str:
    parts = []
    for tick in range(lowest, 101, 20):
        x = _x(tick / 100, lowest)
        colour, width = ("#555", 1.5) if tick == 0 else ("#ddd", 1)
        parts.append(f'<line x1="{x}" y1="8" x2="{x}" y2="{bottom}" stroke="{colour}" stroke-width="{width}"/>')
        label = str(tick).replace("-", "−")
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle" fill="#555">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    words = f"per cent refused, or percentage points; lines are {100 * level:g} % intervals"
    parts.append(f'<text x="{middle}" y="{bottom + 35}" text-anchor="middle" fill="#555">{words}</text>')
    return "".join(parts)


def _block(body: list[str], effect: Effect, y: int, lowest: int) -> int:
    """Add one route's rows from ``y`` on; return where the next block starts."""
    n = f"n = {effect.n_pairs} pairs, {effect.n_missing} missing, {effect.undecided} undecided"
    name = escape(_shortened(effect.hosted, 32))
    body.append(
        f'<rect x="0" y="{y}" width="{WIDTH}" height="{HEAD - 6}" fill="#f1f3f5"/>'
        f'<text x="8" y="{y + 17}" font-weight="600">{name}</text>'
        f'<text x="{WIDTH - 8}" y="{y + 17}" text-anchor="end" fill="#555">{n}</text>'
    )
    y += HEAD
    if effect.insufficient:
        body.append(f'<text x="8" y="{y + 14}" fill="#555">too few graded pairs for a rate</text>')
        return y + ROW + GAP
    for row in _rows(effect):
        body.append(_mark(row, y, lowest))
        y += ROW
    return y + GAP


def _mark(row: Row, y: int, lowest: int) -> str:
    label, interval, colour, text = row
    lo, hi = _x(interval.lo, lowest), _x(interval.hi, lowest)
    estimate = _x(interval.estimate if interval.estimate is not None else 0.0, lowest)
    middle = y + ROW / 2 - 2
    ends = "".join(f"M{x} {middle - 4}V{middle + 4}" for x in (lo, hi))
    return (
        f'<text x="{LEFT - 12}" y="{middle + 4}" text-anchor="end">{escape(_shortened(label, 30))}</text>'
        f'<path d="M{lo} {middle}H{hi}{ends}" stroke="{colour}" stroke-width="2" fill="none"/>'
        f'<rect x="{estimate - 4}" y="{middle - 4}" width="8" height="8" fill="{colour}"/>'
        f'<text x="{WIDTH - 8}" y="{middle + 4}" text-anchor="end">{escape(text)}</text>'
    )


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
