"""Places on the network where things go wrong."""

import contextlib
import socket
from types import TracebackType
from typing import Self


class Silent:
    """A port where connections hang: its queue is full and nobody accepts (the SYNs are dropped, as by a firewall)."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._clients: list[socket.socket] = []
        self.port = 0

    def __enter__(self) -> Self:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port = int(self._listener.getsockname()[1])
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", self.port))
            self._clients.append(client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in (*self._clients, self._listener):
            connection.close()
