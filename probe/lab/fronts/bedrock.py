"""The shape of Amazon Bedrock's Converse and ConverseStream.

Source: botocore 1.44 ``data/bedrock-runtime/2023-09-30/service-2.json`` (shapes ``ConverseResponse``,
``ConverseStreamOutput``, ``TokenUsage``, ``StopReason``); the event stream encoding:
smithy.io/2.0/aws/amazon-eventstream.html; the padding ``p``: events of InvokeModelWithResponseStream as a comment in
anthropics/anthropic-sdk-java ``BedrockBackend.kt`` shows them; that ConverseStream pads too is unconfirmed.
"""

import json
import secrets
import string
import struct
import time
import uuid
import zlib
from typing import Any

from probe.lab.fronts.base import Accent, FrontSettings, counts_of, dump, without
from probe.lab.mistakes import mistake
from probe.lab.upstream import Piece

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}
"""llama.cpp's finish reasons, and Bedrock's words for them."""

_PADDING = string.ascii_lowercase + string.ascii_uppercase + string.digits
_STRING = 7
"""The type of a header whose value is a string."""


class BedrockFront(Accent):
    """The shape of ``/model/{id}/converse`` (JSON) and ``/converse-stream`` (binary frames, an event each).

    Nothing of it names the model or the answer; a request's id stands in a header.
    """

    json_type = "application/json"
    stream_type = "application/vnd.amazon.eventstream"

    def __init__(self, model: str, settings: FrontSettings) -> None:
        self._model = model
        self._lapse = settings.lapse
        self._started = time.monotonic()
        self.created = int(time.time())
        self.id = str(uuid.uuid4())
        self.headers: tuple[tuple[str, str], ...] = (("x-amzn-requestid", self.id),)

    def frame(self, data: bytes) -> bytes:
        """Return one frame for ``{name: event}``; the name of an exception makes it one."""
        [(name, content)] = json.loads(data).items()
        return frame_of(name, dump(content))

    def _event(self, name: str, **content: Any) -> bytes:
        return frame_of(name, dump({**content, "p": _PADDING[: 1 + secrets.randbelow(len(_PADDING))]}))

    def _closing(self, last: Piece) -> dict[str, Any]:
        """Return usage and metrics."""
        counts = counts_of(last, self._lapse)
        found: dict[str, Any] = {}
        if counts is not None:
            found["usage"] = {
                "inputTokens": counts["prompt_tokens"],
                "outputTokens": counts["completion_tokens"],
                "totalTokens": counts["total_tokens"],
            }
        found["metrics"] = {"latencyMs": round(1000 * (time.monotonic() - self._started))}
        return without(found, self._lapse.without) if self._lapse else found

    def begin(self) -> bytes:
        """Return the frame that names the role."""
        return self._event("messageStart", role="assistant")

    def piece(self, text: str) -> bytes:
        """Return one delta; a block of text begins without a frame of its own."""
        return self._event("contentBlockDelta", contentBlockIndex=0, delta={"text": text})

    def end(self, last: Piece) -> bytes:
        """Return the end of the block, the stop reason, and the usage."""
        return (
            self._event("contentBlockStop", contentBlockIndex=0)
            + self._event("messageStop", stopReason=STOP_REASONS.get(last.finish_reason or "stop", last.finish_reason))
            + self._event("metadata", **self._closing(last))
        )

    def whole(self, text: str, last: Piece) -> bytes:
        """Return the answer of Converse."""
        stop = STOP_REASONS.get(last.finish_reason or "stop", last.finish_reason)
        output = {"message": {"role": "assistant", "content": [{"text": text}]}}
        return dump({"output": output, "stopReason": stop, **self._closing(last)})

    def broken(self, code: int, message: str) -> bytes:
        """Return the frame of an exception."""
        stated = {"message": message, "originalStatusCode": code, "originalMessage": message}
        return frame_of("modelStreamErrorException", dump(stated))

    def failed(self, code: int, message: str, text: str) -> tuple[int, bytes]:  # noqa: ARG002 - it is dropped
        """Return the vendor's error in the place of an answer; its name goes into the headers."""
        said = mistake("bedrock", "upstream", message, status=code)
        self.headers += tuple(pair for pair in said.headers if pair[0] != "x-amzn-requestid")
        return code, said.body


def frame_of(name: str, payload: bytes) -> bytes:
    """Return one message of the event stream: prelude, headers, payload, each under a CRC-32."""
    kind = "exception" if name.endswith("Exception") else "event"
    pairs = ((f":{kind}-type", name), (":content-type", "application/json"), (":message-type", kind))
    headers = b"".join(
        struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", _STRING, len(value)) + value.encode()
        for key, value in pairs
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    head = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return head + struct.pack("!I", zlib.crc32(head))
