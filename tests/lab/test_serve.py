"""A lab platform started by hand: what it says, what it serves, and one sentence for each mistake."""

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from probe.errors import ServeError
from probe.lab.serve import main, parser, platform_of, serve
from tests.lab.emulator_kit import chat


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class Announced:
    """A standard output that tells when the last line has come."""

    def __init__(self) -> None:
        self.text = ""
        self.ready = threading.Event()

    def write(self, text: str) -> int:
        self.text += text
        if "try it" in self.text:
            self.ready.set()
        return len(text)

    def flush(self) -> None:
        pass


def test_a_platform_is_served_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    said, stop = Announced(), threading.Event()
    monkeypatch.setattr("sys.stdout", said)
    options = parser().parse_args(
        ["openrouter", "--port", "0", "--words", "glimmerdust", "--inject", "No.", "--sloppy"]
    )
    thread = threading.Thread(target=serve, args=(options, stop))
    thread.start()
    assert said.ready.wait(60)
    url = said.text.split("url")[1].split()[0]
    answer = chat(url.removesuffix("/lab/v1"), "lab", stream=False)
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "No."
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        chat(url.removesuffix("/lab/v1"), "lab")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["azure", "--words", "x"], "nothing says how"),
        (["azure", "--block", "openrouter-moderation"], "do not go together"),
        (["openrouter", "--block", "nothing"], "no block shape 'nothing'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: list[str], says: str) -> None:
    with pytest.raises(ServeError, match=says):
        platform_of(parser().parse_args(arguments))


def test_a_port_that_is_taken_is_one_sentence(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["groq", "--port", str(taken)]) == 1
    assert capsys.readouterr().err == f"Error: Port {taken} is taken: name another one with --port, or 0 for any.\n"


def test_options_become_the_platform() -> None:
    arguments = ["groq", "--key", "k", "--requests-per-day", "5", "--credits", "0.5", "--hidden", "Be brief.", "--cut"]
    platform = platform_of(parser().parse_args(arguments))
    assert (platform.front, platform.action, platform.hidden_system) == ("groq", "output_cut", "Be brief.")
    assert (platform.limits.key, platform.limits.requests_per_day, platform.limits.credits_usd) == ("k", 5, 0.5)
