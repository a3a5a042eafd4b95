"""A study as one self-contained page: no script, no font, no image from elsewhere; everything escaped.

Texts that a model or a platform returned are redacted unless asked for: a report travels further than a database.
"""

from pathlib import Path

from probe.attribution.effects.sentences import headline
from probe.errors import ReportError
from probe.report.plot import forest_plot
from probe.report.rows import all_tables
from probe.report.study import Case, Study

TEMPLATES = Path(__file__).parent / "templates"

QUESTION = (
    "The same open weights may refuse more often through a hosted provider than when served locally. "
    "Did the model get safer, or is the platform refusing on its behalf?"
)


def render(study: Study, *, show_texts: bool = False) -> str:
    """Return the page; ``show_texts`` prints what the routes answered instead of its length."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2")
    return page.render(
        study=study,
        question=QUESTION,
        headline=headline,
        # The plot escapes its own texts; it is the one part that must not be escaped again.
        plot=Markup(forest_plot(study.main_effects)),  # noqa: S704
        tables=all_tables(study),
        texts={case.trial_id: _text(case, show_texts) for case in study.cases},
    )


def write(study: Study, path: Path, *, show_texts: bool = False) -> None:
    """Write the page as UTF-8. Raises ``ReportError`` where the file cannot be written."""
    try:
        path.write_text(render(study, show_texts=show_texts), encoding="utf-8")
    except OSError as error:
        raise ReportError(f"The report could not be written to {path}: {error.strerror or error}.") from error


def _text(case: Case, show: bool) -> str:
    if show:
        return case.text
    count = len(case.text)
    return f"[text of {count} {'character' if count == 1 else 'characters'} redacted]"
