"""The one exception tree; foreign errors are mapped to it at the boundary that meets them.

::

    ProbeError                 a sentence for the user: what, where, what to do
    ├── ConfigError            probe.toml or a command's options are wrong
    ├── CatalogueError         a backend's TOML file is wrong
    ├── PackError              a file of traces is wrong
    ├── StoreError             the database cannot be used
    │   ├── StoreVersionError  it was written by a newer version
    │   └── StoreFullError     the disk is full
    ├── RouteError             a route cannot be used as configured
    │   ├── UnreachableError   nobody answers there
    │   ├── CredentialError    its key is missing or refused
    │   └── ModelError         it does not know the model
    ├── ServeError             a local server did not start
    ├── ProxyError             the proxy did not start, or its port is taken
    ├── WireError              a request is not what its dialect allows, or cannot be built
    ├── ScoringError           the twin could not score a text
    └── ReportError            a report could not be written

A command ends with the sentence and exit status 1; there is never a traceback for a user's mistake. What goes wrong *on
the wire* is not an exception: it is a state of the exchange.
"""


class ProbeError(Exception):
    """Base of all errors that a user may see; ``str()`` is one complete sentence."""


class ConfigError(ProbeError):
    """``probe.toml`` or the options of a command are wrong."""


class CatalogueError(ProbeError):
    """A backend's TOML file is wrong."""


class PackError(ProbeError):
    """A file of traces cannot be read."""


class StoreError(ProbeError):
    """The database cannot be opened, read or written."""


class StoreVersionError(StoreError):
    """The database was written by a newer version of the probe."""


class StoreFullError(StoreError):
    """The disk that holds the database is full."""


class RouteError(ProbeError):
    """A route cannot be used as it is configured."""


class UnreachableError(RouteError):
    """Nobody answers at a route's address."""


class CredentialError(RouteError):
    """A route's key is missing or was refused."""


class ModelError(RouteError):
    """A route does not know the model."""


class ServeError(ProbeError):
    """A local server did not start or stopped by itself."""


class ProxyError(ProbeError):
    """The proxy could not start."""


class WireError(ProbeError):
    """A request body is not what its dialect allows, or a request cannot be built as a route wants it."""


class ScoringError(ProbeError):
    """The twin could not score a text."""


class ReportError(ProbeError):
    """A report could not be written."""
