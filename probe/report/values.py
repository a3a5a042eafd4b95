"""What tables are made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rows:
    """One table: title, column heads, rows of cells, and what must be known to read it."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def p_value(p: float) -> str:
    """Two significant digits, with an end where more would be pretence."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
