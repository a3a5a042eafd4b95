"""The report: what it must say, what it must never hold, and that it stands alone."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from probe.attribution.effects.aa import AA, AATest
from probe.attribution.effects.blocking import Screened, blocking
from probe.attribution.effects.estimate import Pair, Side, effects_for
from probe.attribution.gate.values import DIFFERENT, OTHER_MODEL, Gate, GateTest
from probe.errors import ReportError
from probe.report.page import render, write
from probe.report.plot import LEFT, RIGHT, WIDTH, forest_plot
from probe.report.rows import all_tables, p_value
from probe.report.study import Case, RouteSummary, Study
from probe.report.tables import print_study
from probe.stats.intervals import Interval, wilson

YES, NO, STOP = Side("refused", "model"), Side("complied", "model"), Side("blocked", "platform")
HOSTILE = "<script>alert('x')</script> & [bold]Q7[/bold]"
VOID = {"meta", "link", "br", "img", "hr", "input"}


def make_pairs(family: str, stopped: int, model: int, plain: int) -> list[Pair]:
    kinds = [(STOP, NO)] * stopped + [(YES, YES)] * model + [(NO, NO)] * plain + [(Side("error"), NO)] * 2
    return [Pair(f"{family}{i}", family, hosted, twin) for i, (hosted, twin) in enumerate(kinds)]


AA_FAILED = AA(
    (
        AATest("local against itself", Interval(0.2, 0.1, 0.3, 60, "Tango"), 60, 0.001, 0.002),
        AATest("early against late half of glass", Interval(None, -1.0, 1.0, 0, "none"), 0, note="one half is empty"),
    ),
    failed=True,
    sentence="local against itself differs <b>although</b> nothing sets its halves apart.",
)
GATE_TESTS = {
    "ranks": GateTest(0.31, 0.0001, 64, "texts", "Tokens lie elsewhere.", distance=0.1, limit=0.14),
    "mmd": GateTest(None, None, 0, "prompts", "There are no repeats."),
}
FOUND = Gate(DIFFERENT, OTHER_MODEL, "Different, most likely another model.", GATE_TESTS, 64, None, 0.05, 0.05)


def screen(count: int, hosted: Side, twin: Side, *, benign: bool = False) -> list[Screened]:
    return [Screened(f"{count}{i}", "controls" if benign else "direct", benign, hosted, twin) for i in range(count)]


def make_study(**changes: object) -> Study:
    pairs = make_pairs("direct", 40, 20, 20) + make_pairs("persona", 2, 3, 5)
    few = make_pairs("direct", 3, 3, 3)
    fields: dict[str, object] = {
        "title": f"A study of {HOSTILE}",
        "created_at": "2026-02-03T04:05:06Z",
        "version": "0.1.0",
        "facts": {"pack": "fiction-1", "seed": HOSTILE},
        "routes": (
            RouteSummary("local", "local", "llamacpp", "toy", None, {"complied": 60, "refused": 30, "error": 2}),
            RouteSummary(
                "glass",
                "hosted",
                "openrouter",
                HOSTILE,
                "local",
                {"complied": 25, "refused": 23, "blocked": 40, "cut": 2, "error": 4, "novel": 1},
                {"model": 23, "platform": 41, "undecided": 1},
                {"declared_block": 40, "cut_stream": 1},
                stopped=1,
                spared=12,
            ),
        ),
        "effects": (
            *(replace(e, aa=AA_FAILED) for e in effects_for(pairs, "glass", "local", gate=FOUND)),
            *effects_for(few, HOSTILE, "local"),
        ),
        "blocking": tuple(
            blocking(screen(9, STOP, NO) + screen(4, STOP, NO, benign=True) + screen(7, NO, NO), "glass", "local")
        ),
        "notes": ("The likelihood detector was asked on every answer.", HOSTILE),
        "cases": (
            Case(
                "t1", "glass", "direct-1", "refused", "platform", 0.9987, "injected_text", None, ("z = 41.",), HOSTILE
            ),
        ),
        "truth": {"accuracy": wilson(95, 100), "false accusations": wilson(0, 60)},
    }
    return Study(**(fields | changes))  # type: ignore[arg-type]


class Page(HTMLParser):
    """Collects text, tags and attributes; fails on a tag that is not closed where it must be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def test_the_page_says_every_sentence_and_table_and_escapes_everything() -> None:
    study = make_study()
    page = Page(render(study))
    for effect in study.effects:
        assert " ".join(effect.sentence.split()) in page.text
    for table in all_tables(study):
        assert table.title in page.text
        for cell in (cell for row in table.rows for cell in row):
            assert " ".join(cell.split()) in page.text
    for note in study.notes:
        assert note in page.text
    assert "Did the model get safer, or is the platform refusing on its behalf?" in page.text
    assert "2026-02-03T04:05:06Z" in page.text
    assert "script" not in page.tags


def test_the_page_stands_alone() -> None:
    page = Page(render(make_study()))
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "form", "use", "image"})
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "href", "srcset", "action", "data"}
        if name != "xmlns":
            assert "//" not in (value or "")
    assert not re.search(r"@import|url\(", render(make_study()))


def test_texts_are_redacted_unless_asked_for() -> None:
    secret = "TOP-" + "SECRET"
    case = Case("t1", "glass", "direct-1", "refused", "platform", None, None, "gateway", (), secret)
    study = make_study(cases=(case,))
    assert secret not in render(study)
    assert "[text of 10 characters redacted]" in render(study)
    assert secret in render(study, show_texts=True)


def test_no_rate_is_bare() -> None:
    study = make_study()
    for table in all_tables(study):
        for cell in (cell for row in table.rows for cell in row):
            assert not re.search(r"(?:%|points)(?! \[)", cell), cell


def test_the_tables_on_the_terminal() -> None:
    out = io.StringIO()
    study = make_study()
    print_study(study, Console(file=out, width=2000))
    text = out.getvalue()
    for effect in study.main_effects:
        assert effect.sentence in text
    # 23 refused, 40 blocked and one cut by the platform, of 89 that can be graded.
    assert "71.9 % [61.8, 80.2], n = 89" in text
    assert "63.1 % [50.9, 73.8], n = 65" in text
    assert "[bold]Q7[/bold]" in text
    assert "too few pairs" in text
    assert "novel" in text


def test_the_gate_the_controls_and_the_conclusion_are_shown() -> None:
    study = make_study()
    page = Page(render(study))
    assert "A/A control failed. local against itself differs <b>although</b> nothing" in page.text
    assert "The same-weights gate: Different, most likely another model." in page.text
    tables = {table.title: table for table in all_tables(study)}
    assert {effect.conclusion for effect in study.main_effects} == {"both", "undecided"}
    assert [row[tables["Effects"].heads.index("conclusion")] for row in tables["Effects"].rows] == ["both", "undecided"]
    assert tables["Effects"].rows[0][tables["Effects"].heads.index("same weights")] == "different: other model (n = 64)"
    assert ("glass", "ranks", "0.31", "0.0001", "64 texts", "0.100", "0.140") in tables[
        "The same-weights gate, test by test"
    ].rows
    assert ("glass", "mmd", "not asked", "", "0 prompts", "", "") in tables["The same-weights gate, test by test"].rows
    assert tables["A/A controls"].rows[1][-1] == "one half is empty"
    total = tables["Over- and under-blocking"].rows[0]
    assert total[:4] == ("glass", "all", "13", "0")
    assert total[4].startswith("30.8 % [")
    assert "12" in tables["Routes"].rows[1]
    assert any(row[1].startswith("serving difference within δ (90") for row in tables["How firm this is"].rows)
    assert any(
        "without the platform" in head for head in tables["Attack success, and the route without its platform"].heads
    )


def test_nothing_says_that_the_gate_was_not_part_of_this_version() -> None:
    assert "not asked in this version" not in render(make_study())


def test_the_terminal_keeps_to_its_width() -> None:
    out = io.StringIO()
    study = make_study(title="A study", routes=tuple(replace(route, model="toy") for route in make_study().routes))
    print_study(study, Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "A/A CONTROL FAILED" in text
    assert "different: other model (n = 64)" in text
    assert "… harmless" in text
    assert "controls" not in text[text.index("Over- and under-blocking") : text.index("Of what the platform stopped")]


def test_route_counts() -> None:
    route = make_study().routes[1]
    assert (route.trials, route.graded, route.missing, route.refused) == (95, 89, 6, 64)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_plot_is_well_formed_and_within_its_box(count: int) -> None:
    effects = [effects_for(make_pairs("a", 40, 20, 20), f"host & {HOSTILE} {i}", "local")[0] for i in range(count)]
    root = ET.fromstring(forest_plot(effects))
    space = "{http://www.w3.org/2000/svg}"
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    described = root.findtext(f"{space}desc") or ""
    for effect in effects:
        assert f"n = {effect.n_pairs}" in described
    squares = [r for r in root.iter(f"{space}rect") if r.attrib["width"] == "8"]
    assert len(squares) == 5 * count
    for element in root.iter():
        for name, limit in (("x", width), ("x1", width), ("y", height), ("y1", height)):
            assert 0 <= float(element.attrib.get(name, 0)) <= limit


def test_the_plot_places_its_marks() -> None:
    effect = effects_for(make_pairs("a", 40, 0, 40), "h", "t")[0]
    root = ET.fromstring(forest_plot([effect]))
    space = "{http://www.w3.org/2000/svg}"
    middles = [float(r.attrib["x"]) + 4 for r in root.iter(f"{space}rect") if r.attrib["width"] == "8"]
    twin, hosted, difference, platform, serving = middles
    assert twin == serving < platform == hosted == difference
    ticks = {t.text: float(t.attrib["x"]) for t in root.iter(f"{space}text") if t.attrib.get("text-anchor") == "middle"}
    assert twin == ticks["0"]
    assert (ticks["−20"], ticks["100"]) == (LEFT, WIDTH - RIGHT)
    assert hosted == pytest.approx((ticks["40"] + ticks["60"]) / 2, abs=0.1)


def test_an_empty_study_renders() -> None:
    study = make_study(routes=(), effects=(), cases=(), truth={}, notes=(), facts={})
    assert "nothing to conclude" in Page(render(study)).text


def test_writing(tmp_path: Path) -> None:
    write(make_study(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(ReportError, match="could not be written"):
        write(make_study(), tmp_path / "absent" / "report.html")


@pytest.mark.parametrize(("p", "text"), [(1.0, "1.00"), (0.049, "0.05"), (0.0023, "0.0023"), (1e-9, "< 0.0001")])
def test_p_values(p: float, text: str) -> None:
    assert p_value(p) == text
