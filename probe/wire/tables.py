"""Strict reading of TOML tables: what a file may not say is one sentence with the file and the key."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from probe.errors import CatalogueError

_KINDS: Mapping[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    dict: "a table",
    list: "a list",
}


class Table:
    """One table of a file; every key must be asked for before ``done`` is called."""

    def __init__(self, path: Path, where: str, values: Mapping[str, Any]) -> None:
        self.path = path
        self.where = where
        self._values = values
        self._known: set[str] = set()

    def wrong(self, key: str, message: str) -> CatalogueError:
        """Make the error for one key."""
        place = f"{self.where}.{key}" if self.where and key else self.where or key
        return CatalogueError(f"{self.path}: {place} {message}.")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, kind: type, default: Any = None, *, required: bool = False) -> Any:
        """Return a value of the expected type, or the default where the key is absent."""
        self._known.add(key)
        if key not in self._values:
            if required:
                raise self.wrong(key, "is missing")
            return default
        value = self._values[key]
        # A bool is an int to Python, but not to a reader.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"must be {_KINDS[kind]}, not {value!r}")
        return value

    def raw(self, key: str) -> Any:
        """Return a value of any type, ``None`` where the key is absent."""
        self._known.add(key)
        return self._values.get(key)

    def text(self, key: str) -> str:
        """Return a text that must be there and not be empty."""
        value: str = self.get(key, str, required=True)
        if not value.strip():
            raise self.wrong(key, "is empty")
        return value

    def choice(self, key: str, allowed: Iterable[str]) -> Any:
        """Return a text that must be one of a few words."""
        value, words = self.get(key, str, required=True), tuple(allowed)
        if value not in words:
            raise self.wrong(key, f"must be one of {', '.join(words)}, not {value!r}")
        return value

    def pattern(self, key: str) -> re.Pattern[str] | None:
        """Return a compiled regular expression, or ``None`` where the key is absent."""
        value = self.get(key, str)
        return None if value is None else self.compiled(key, value)

    def compiled(self, key: str, value: Any) -> re.Pattern[str]:
        """Compile the regular expression that stands at a key."""
        if not isinstance(value, str):
            raise self.wrong(key, f"must be a regular expression, not {value!r}")
        try:
            return re.compile(value)
        except re.error as error:
            raise self.wrong(key, f"is not a regular expression: {error}") from None

    def texts(self, key: str) -> dict[str, str]:
        """Return a table whose values are all texts."""
        values: dict[str, Any] = self.get(key, dict, {})
        for name, value in values.items():
            if not isinstance(value, str):
                raise self.wrong(f"{key}.{name}", f"must be a text, not {value!r}")
        return dict(values)

    def tables(self, key: str) -> "list[Table]":
        """Return the tables of an array of tables."""
        found = []
        for number, value in enumerate(self.get(key, list, [])):
            if not isinstance(value, dict):
                raise self.wrong(f"{key}[{number}]", f"must be a table, not {value!r}")
            found.append(Table(self.path, f"{key}[{number}]", value))
        return found

    def table(self, key: str) -> "Table":
        """Return a table within this one, empty where it is absent."""
        return Table(self.path, f"{self.where}.{key}" if self.where else key, self.get(key, dict, {}))

    def keys(self) -> list[str]:
        """Return the keys as written, and count them all as asked for."""
        self._known.update(self._values)
        return list(self._values)

    def done(self) -> None:
        """Raise for the first key that nobody asked for."""
        for key in self._values:
            if key not in self._known:
                raise self.wrong(key, f"is an unknown key; expected are {', '.join(sorted(self._known))}")
