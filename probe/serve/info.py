"""What a started server tells about itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Where a local server listens, without a path (``http://127.0.0.1:PORT``), the model id to send, its version."""

    url: str
    model: str
    version: str
