"""Where the data folders are: beside the package in a checkout, inside the package in an installed wheel."""

from pathlib import Path

from probe.errors import ProbeError

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """Return the path of ``backends``, ``scenarios`` or ``db``.

    Raises ``ProbeError`` where the installation is broken and has neither.
    """
    for parent in (_PACKAGE, _PACKAGE.parent):
        folder = parent / name
        if folder.is_dir():
            return folder
    raise ProbeError(f"The data folder {name!r} is missing beside {_PACKAGE}: install the package again.")
