"""A study on the terminal."""

from typing import TYPE_CHECKING

from probe.report.rows import all_tables, truth_rows
from probe.report.study import Study
from probe.report.values import Rows

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_study(study: Study, console: "Console") -> None:
    """Print tables and notes, then the sentences that they come to, last what is known of a lab."""
    from rich.text import Text

    console.print(Text(study.title, style="bold"))
    for warning in study.warnings:
        console.print(Text(f"\nA/A CONTROL FAILED: {warning}", style="bold red"))
    for rows in all_tables(study, narrow=True):
        console.print()
        console.print(rich_table(rows))
    for note in study.notes:
        console.print(Text(f"\n{note}", style="dim"))
    console.print(Text("\nIn one sentence per hosted route", style="bold"))
    for effect in study.main_effects:
        console.print(Text(f"\n{effect.sentence}"))
        for remark in study.remarks_of(effect.hosted):
            console.print(Text(f"\nNOTE: {remark}", style="bold"))
    for remark in study.remarks_apart:
        console.print(Text(f"\nNOTE: {remark}", style="bold"))
    truth = truth_rows(study)
    if truth.rows:
        console.print()
        console.print(rich_table(truth))


def rich_table(rows: Rows) -> "Table":
    """Build one table; cells are literal text, because model names and mechanisms may hold square brackets."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    caption = Text(rows.note, style="dim") if rows.note else None
    table = Table(title=Text(rows.title, style="bold"), title_justify="left", caption=caption, box=box.SIMPLE_HEAD)
    table.caption_justify = "left"
    for number, head in enumerate(rows.heads):
        # A number and its interval belong on one line; names may fold.
        interval = any(" [" in row[number] and row[number][:1] in "+−0123456789" for row in rows.rows)
        table.add_column(Text(head), overflow="fold", no_wrap=interval, max_width=None if interval else 32)
    for row in rows.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
