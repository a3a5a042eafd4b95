"""The tables of a bench and the notes under them, for the terminal and for the page in the docs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probe.lab.bench.grid import KIN
from probe.report.values import Rows

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 112
"""Columns of a terminal in which a value and its interval stand side by side."""

NOTES = (
    (
        "Counted is every hosted answer that was a non-compliance or that a platform wrote (n). Right is a verdict "
        "that agrees with the lab's log; undecided is not right, and neither is an answer of the platform's that "
        "passed for a compliance. F1 takes the platform as the positive class; families in which no platform "
        "writes have none. FDR is the share of wrong ones among the answers called the platform's. ECE is over ten "
        "equal bins of the probability. Rates have Wilson's 95 % intervals, F1 a bootstrap's over answers."
    ),
    (
        "Nothing of the probe was fitted on the bench. The baseline http_lexical_timing is a logistic regression "
        "on status, shape, wording and times, told the truth of all families but the one that it predicts (in the "
        "manner of arXiv 2607.02121); canned_strings knows declared signatures and canned texts. Neither abstains."
    ),
    (
        "injected_kin: its texts come from weights that learnt from the same corpus as the twin's, so their "
        "wording is that of the twin by construction and only the envelope, the timing and the token counts can "
        "tell them. It counts in `overall`; `overall_without_kin` leaves it out."
    ),
)


def bench_tables(found: Mapping[str, Any]) -> list[Rows]:
    """Return the tables of ``BenchResult.to_json()``; a line break stands between a value and its interval."""
    return [
        _measures("With the twin's scores", found),
        _measures("Without scores (no twin that can score)", found["without_scores"]),
        _against(found),
        _deciders(found),
    ]


def _lines(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    lines = [*found["families"].items(), ("overall", found["overall"])]
    if KIN in found["families"] and len(found["families"]) > 1:
        lines.append(("overall_without_kin", found["overall_without_kin"]))
    return lines


def _measures(title: str, found: Mapping[str, Any]) -> Rows:
    heads = ("family", "n", "F1", "right", "false acc.", "FDR", "undecided", "ECE")
    rows = []
    for name, line in _lines(found):
        limits = line["intervals"]
        shares = (_share(line[key], limits[key]) for key in ("f1", "accuracy", "false_accusation_rate"))
        undecided = _share(line["undecided_rate"], limits["undecided_rate"])
        error = "–" if line["ece"] is None else f"{line['ece']:.3f}"
        rows.append((name, str(line["n"]), *shares, _percent(line["fdr"]), undecided, error))
    return Rows(title, heads, tuple(rows), "Per cent, but for n and ECE.")


def _against(found: Mapping[str, Any]) -> Rows:
    names = list(found["baselines"])
    marks = [f"({letter})" for letter in "abcdefgh"[: len(names)]]
    heads = ("family", "F1", *(f"F1 {mark}" for mark in marks), "right", *(f"right {mark}" for mark in marks))
    rows = []
    for family, ours in _lines(found):
        lines = (ours, *(dict(_lines(found["baselines"][name]))[family] for name in names))
        cells = (_share(line[key], line["intervals"][key]) for key in ("f1", "accuracy") for line in lines)
        rows.append((family, *cells))
    known = ", ".join(f"{mark} {name}" for mark, name in zip(marks, names, strict=True))
    return Rows("Beside the baselines", heads, tuple(rows), f"Per cent. The baselines: {known}.")


def _deciders(found: Mapping[str, Any]) -> Rows:
    rows = []
    for family, line in _lines(found):
        counts = line["counts"]
        hit = counts["called_platform"] - counts["falsely"]
        called = f"{hit} of {counts['platform']}" if counts["platform"] else "–"
        detectors = ", ".join(f"{name} {n}" for name, n in line["deciders"].items()) or "–"
        mechanisms = ", ".join(f"{name} {n}" for name, n in line["mechanisms"].items() if n) or "–"
        rows.append((family, called, detectors, mechanisms))
    note = "Of the answers rightly called the platform's: the detector with the largest e-value, and the mechanism."
    return Rows("What decided", ("family", "called", "detectors", "mechanism"), tuple(rows), note)


def print_bench(found: Mapping[str, Any], console: "Console") -> None:
    """Print tables and notes; in a narrow terminal an interval stands under its value."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = console.width >= WIDE
    for rows in bench_tables(found):
        caption = Text(rows.note, style="dim")
        table = Table(title=Text(rows.title, style="bold"), title_justify="left", caption=caption, padding=(0, 1, 0, 0))
        table.box, table.caption_justify = box.SIMPLE_HEAD, "left"
        for number, head in enumerate(rows.heads):
            table.add_column(Text(head), overflow="fold", no_wrap=number == 0)
        for row in rows.rows:
            table.add_row(*(Text(cell.replace("\n", " ") if wide else cell) for cell in row))
        console.print()
        console.print(table)
    for note in NOTES:
        console.print(Text(f"\n{note}", style="dim"))


def markdown(rows: Rows) -> str:
    """Return a table as Markdown."""
    lines = ["| " + " | ".join(rows.heads) + " |", "|" + "---|" * len(rows.heads)]
    lines += ["| " + " | ".join(row).replace("\n", " ") + " |" for row in rows.rows]
    return f"### {rows.title}\n\n" + "\n".join(lines) + f"\n\n{rows.note}"


def page(found: Mapping[str, Any], seeds: Sequence[int]) -> str:
    """Return the generated part of docs/bench.md."""
    platforms, traces, machine = found["platforms"], found["traces"], found["machine"]
    head = (
        f"Seeds {', '.join(map(str, seeds))}; {sum(platforms.values())} platforms each; "
        f"{traces['platforms']['attacks']} attacks and {traces['platforms']['controls']} controls over every route "
        f"({traces['declared']['attacks']} and {traces['declared']['controls']} over those that declare); "
        f"{machine['cores']} cores, {machine['system']}, probe {found['versions']['probe']}."
    )
    parts = [head, *(markdown(rows) for rows in bench_tables(found)), "![Rates per family](bench.svg)", *NOTES]
    return "\n\n".join(parts)


def _share(value: float | None, limits: Mapping[str, float] | None) -> str:
    if value is None or limits is None:
        return "–"
    return f"{100 * value:.1f}\n[{100 * limits['lo']:.0f}, {100 * limits['hi']:.0f}]"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
