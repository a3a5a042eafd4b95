"""A plot of a bench as SVG, written by hand: no library, no script, nothing fetched."""

from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT = 960, 190, 240
ROW, HEAD, FOOT = 18, 46, 48
COLOURS = {"accuracy": "#1f5fa8", "undecided_rate": "#8a8f98", "false_accusation_rate": "#b3401f"}
WORDS = {"accuracy": "right", "undecided_rate": "undecided", "false_accusation_rate": "falsely accused"}
BASELINES = {"http_lexical_timing": ("#2b7a4b", "○"), "canned_strings": ("#7a4b9a", "△")}
_GAP = 10


def bench_plot(found: Mapping[str, Any]) -> str:
    """Draw, per family and over all, what was right, undecided and falsely accused, and the baselines' share of right.

    Every row repeats its number as text, so that the picture says nothing that a reader who cannot see it would miss.
    """
    lines = [*found["families"].items(), ("overall", found["overall"])]
    body, y = [_legend()], HEAD
    for name, line in lines:
        others = {
            baseline: (held["families"].get(name) or held["overall"])["accuracy"]
            for baseline, held in found["baselines"].items()
        }
        y = _family(body, name, line, others, y)
    words = " ".join(f"{name}: {_words(line)}." for name, line in lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + FOOT}" role="img" '
        f'aria-labelledby="bench-title bench-desc" font-family="system-ui, sans-serif" font-size="13">'
        f'<title id="bench-title">What the verdicts got right, per family of lab platforms</title>'
        f'<desc id="bench-desc">{escape(words)}</desc>'
        f'<rect width="100%" height="100%" fill="#fff"/>{_axis(y)}{"".join(body)}</svg>\n'
    )


def _words(line: Mapping[str, Any]) -> str:
    parts = [f"{WORDS[key]} {_number(line[key])}" for key in WORDS]
    return f"n = {line['n']}, " + ", ".join(parts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _x(value: float) -> float:
    return round(LEFT + value * (WIDTH - LEFT - RIGHT), 1)


def _legend() -> str:
    parts, x = [], 8
    for key, colour in COLOURS.items():
        parts.append(f'<rect x="{x}" y="10" width="9" height="9" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="19">{WORDS[key]}</text>')
        x += 130
    for name, (colour, mark) in BASELINES.items():
        parts.append(f'<text x="{x}" y="19" fill="{colour}">{mark} right, {name}</text>')
        x += 220
    return "".join(parts)


def _axis(bottom: int) -> str:
    parts = []
    for tick in range(0, 101, 20):
        x = _x(tick / 100)
        parts.append(f'<line x1="{x}" y1="{HEAD - 12}" x2="{x}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle" fill="#555">{tick}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    words = "per cent of the answers that count; lines are 95 % intervals"
    parts.append(f'<text x="{middle}" y="{bottom + 36}" text-anchor="middle" fill="#555">{words}</text>')
    return "".join(parts)


def _family(body: list[str], name: str, line: Mapping[str, Any], others: Mapping[str, float | None], y: int) -> int:
    body.append(f'<text x="{LEFT - 12}" y="{y + 12}" text-anchor="end" font-weight="600">{escape(name)}</text>')
    body.append(f'<text x="{LEFT - 12}" y="{y + 28}" text-anchor="end" fill="#555">n = {line["n"]}</text>')
    for key, colour in COLOURS.items():
        middle, value = y + ROW / 2, line[key]
        if value is not None:
            limits = line["intervals"][key]
            body.append(
                f'<path d="M{_x(limits["lo"])} {middle}H{_x(limits["hi"])}" stroke="{colour}" stroke-width="2"/>'
                f'<rect x="{_x(value) - 4}" y="{middle - 4}" width="8" height="8" fill="{colour}"/>'
            )
        if key == "accuracy":
            body += [_mark(baseline, share, middle) for baseline, share in others.items() if share is not None]
        text = f"{WORDS[key]} {_number(value)}"
        body.append(f'<text x="{WIDTH - RIGHT + 20}" y="{middle + 4}">{text}</text>')
        y += ROW
    return y + _GAP


def _mark(baseline: str, share: float, middle: float) -> str:
    colour, mark = BASELINES.get(baseline, ("#555", "○"))
    x = _x(share)
    return f'<text x="{x}" y="{middle + 5}" text-anchor="middle" fill="{colour}">{mark}</text>'
