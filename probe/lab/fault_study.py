"""A study over routes that fail, and what must hold of it whatever fails: the count against two independent records.

The runner is the real command in a process of its own; the servers (``probe.lab.unfriendly``) are others, and keep logs
that the runner never sees. Afterwards three records are compared: the plan with its exchanges, the journal of attempts
that are written down before a request leaves, and the servers' logs.
"""

import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from probe.lab.unfriendly import COMPLETION_USD, FAULTS, PROMPT_USD, Asked

KEY = "OPENAI_API_KEY"
_STARTS = 80
"""Starts of the command, beyond which a study counts as hanging."""

_NEVER = frozenset({"dns", "tls"})
"""Routes of the study that cannot be reached; their trials stay open with a reason."""

_PATIENCE_S = 900.0


@dataclass(frozen=True, slots=True)
class FaultResult:
    """What came of a study of faults.

    ``named_states`` counts trials without an answer by their reason. ``lost`` are trials without an answer and without
    a reason, and requests that reached a server without a line in the journal; ``sent_twice`` requests that reached a
    server after the answer of their trial had been stored. Money in US dollars: ``billed_usd`` by the servers' own
    count, ``claimed_usd`` by the run's.
    """

    trials: int
    answered: int
    named_states: Mapping[str, int]
    lost: int
    sent_twice: int
    kills: int
    starts: int
    requests: int
    faults: Mapping[str, int]
    budget_usd: float | None
    billed_usd: float
    claimed_usd: float
    seconds: float
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


@dataclass
class FaultStudy:
    """``traces`` traces over five routes: a twin, two that fail now and then, a name that does not exist, bad TLS.

    ``kills`` times the command is killed with SIGKILL at a random moment; ``budget_usd`` is handed to it.
    """

    folder: Path
    traces: int = 1000
    kills: int = 0
    seed: int = 0
    budget_usd: float | None = None
    faults: Mapping[str, float] = field(default_factory=lambda: FAULTS)

    @property
    def database(self) -> Path:
        """The study's database."""
        return self.folder / "probe.db"

    def run(self) -> FaultResult:
        """Run the study to its end. Raises ``RuntimeError`` where it does not come to one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        with ExitStack() as stack:
            ports = {
                "twin": stack.enter_context(self._server("twin", {})),
                "stream": stack.enter_context(self._server("stream", self.faults)),
                "whole": stack.enter_context(self._server("whole", self.faults)),
                "tls": stack.enter_context(self._server("tls", {}, certificate(self.folder))),
            }
            self._write(ports)
            kills, starts = self._start_until_done()
        return self._count(kills, starts, time.monotonic() - begun)

    @contextmanager
    def _server(self, name: str, faults: Mapping[str, float], tls: Path | None = None) -> Iterator[int]:
        options = {
            "faults": dict(faults),
            "seed": self.seed * 7 + len(name),
            "log": str(self.folder / f"{name}.log"),
            "certificate": str(tls) if tls else None,
        }
        command = [sys.executable, "-m", "probe.lab.unfriendly", json.dumps(options)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield int(process.stdout.readline())
            finally:
                process.stdin.close()
                process.wait(timeout=10)

    def _write(self, ports: Mapping[str, int]) -> None:
        pace = (
            "pace = { concurrency = 12, connect_timeout_s = 3, first_byte_timeout_s = 1.0, chunk_timeout_s = 0.7, "
            "timeout_s = 10 }"
        )
        price = f"price = {{ prompt = {PROMPT_USD}, completion = {COMPLETION_USD} }}"
        lines = ["[run]", 'packs = ["pack.jsonl"]', f"seed = {self.seed}", ""]
        lines += ["[routes.twin]", 'backend = "llamacpp"', f'url = "http://127.0.0.1:{ports["twin"]}/v1"']
        lines += ['model = "kettle"', 'scorer = "none"', pace, ""]
        hosted = {
            "stream": (f"http://127.0.0.1:{ports['stream']}/v1", "true"),
            "whole": (f"http://127.0.0.1:{ports['whole']}/v1", "false"),
            "dns": ("http://nobody.invalid/v1", "true"),
            "tls": (f"https://127.0.0.1:{ports['tls']}/v1", "true"),
        }
        for name, (url, stream) in hosted.items():
            lines += [f"[routes.{name}]", 'backend = "openai"', f'url = "{url}"', 'model = "kettle"', 'twin = "twin"']
            lines += [f"stream = {stream}", price, pace, ""]
        (self.folder / "probe.toml").write_text("\n".join(lines), encoding="utf-8")
        with (self.folder / "pack.jsonl").open("w", encoding="utf-8") as pack:
            for number in range(self.traces):
                messages = [{"role": "user", "content": f"Write a short note about brass kettle number {number}."}]
                trace = {"name": f"kettle-{number}", "messages": messages, "sampling": {"max_tokens": 64}}
                pack.write(json.dumps(trace) + "\n")

    def _command(self) -> list[str]:
        budget = ["--max-usd", repr(self.budget_usd)] if self.budget_usd is not None else []
        return [sys.executable, "-m", "probe", "run", "--json", "--no-aa", *budget]

    def _start_until_done(self) -> tuple[int, int]:
        """Start the command until only what cannot be answered is open; kill it on the way. Return kills and starts."""
        chance = random.Random(self.seed)
        killed, before = 0, ""
        for start in range(1, _STARTS + 1):
            with subprocess.Popen(  # noqa: S603 - our own interpreter and our own command
                self._command(),
                cwd=self.folder,
                env={**os.environ, KEY: "not-a-real-key"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                if killed < self.kills:
                    # A random number of exchanges later, from "before anything" to "well under way".
                    wanted = self._recorded() + chance.choice([0, 1, 3, 10, 40, 150, 400])
                    while process.poll() is None and self._recorded() < wanted:
                        time.sleep(0.01)
                    if process.poll() is None:
                        process.kill()
                        killed += 1
                said, problems = process.communicate(timeout=_PATIENCE_S)
            (self.folder / f"start-{start}.txt").write_text(said + problems, encoding="utf-8")
            state = self._open()
            if killed >= self.kills and not state - {f"planned {name}" for name in _NEVER}:
                return killed, start
            now = f"{sorted(state)} {self._recorded()}"
            if now == before and killed >= self.kills:
                # The last start did nothing: the budget is spent, or its message says what else is in the way.
                return killed, start
            before = now
        raise RuntimeError(f"The study did not end within {_STARTS} starts; see {self.folder}.")

    def _recorded(self) -> int:
        found = self._query("SELECT count(*) FROM exchanges")
        return int(found[0][0]) if found else 0

    def _open(self) -> set[str]:
        rows = self._query(
            "SELECT DISTINCT trials.state || ' ' || routes.name FROM trials JOIN routes ON routes.id = route_id "
            "WHERE trials.state = 'planned'"
        )
        return {row[0] for row in rows}

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        if not self.database.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
                return connection.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []  # no schema yet

    def _asked(self, name: str) -> list[Asked]:
        path = self.folder / f"{name}.log"
        if not path.is_file():
            return []
        return [Asked(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

    def _count(self, kills: int, starts: int, seconds: float) -> FaultResult:
        problems: list[str] = []
        trials = self._query(
            "SELECT trials.id, trials.state, trials.reason, routes.name, traces.messages FROM trials "
            "JOIN routes ON routes.id = route_id JOIN traces ON traces.id = trace_id"
        )
        states = Counter(reason for _, state, reason, _, _ in trials if state != "answered" and reason)
        unnamed = [row[0] for row in trials if row[1] != "answered" and not row[2]]
        sent_at = dict(self._query("SELECT trial_id, started_at FROM exchanges WHERE answered = 1"))
        journal = Counter(row[0] for row in self._query("SELECT trial_id FROM attempts WHERE source IS NOT 'unsent'"))
        asked = {name: self._asked(name) for name in ("twin", "stream", "whole")}
        arrived: dict[tuple[str, str], list[float]] = defaultdict(list)
        for name, requests in asked.items():
            for request in requests:
                arrived[name, request.key].append(request.at)
        twice = unwritten = 0
        for trial_id, state, _, name, messages in trials:
            words = json.loads(messages)[-1]["content"]
            times = arrived[name, hashlib.sha256(words.encode()).hexdigest()[:24]]
            if state == "answered" and trial_id not in sent_at:
                problems.append(f"trial {trial_id} counts as answered and has no answer")
            twice += _after(times, sent_at.get(trial_id))
            # What went to the twin costs nothing and is not in the journal.
            unwritten += 0 if name == "twin" else max(0, len(times) - journal[trial_id])
        hosted = [request for name in ("stream", "whole") for request in asked[name]]
        claimed = self._query(
            "SELECT total(CASE WHEN ended THEN nanousd ELSE reserved_nanousd END) / 1e9 FROM attempts"
        )
        return FaultResult(
            trials=len(trials),
            answered=sum(row[1] == "answered" for row in trials),
            named_states=dict(sorted(states.items())),
            lost=len(unnamed) + unwritten,
            sent_twice=twice,
            kills=kills,
            starts=starts,
            requests=sum(map(len, asked.values())),
            faults=dict(sorted(Counter(request.fault for request in hosted).items())),
            budget_usd=self.budget_usd,
            billed_usd=sum(request.usd for request in hosted),
            claimed_usd=float(claimed[0][0]) if claimed else 0.0,
            seconds=seconds,
            problems=tuple(problems),
        )


def _after(arrivals: list[float], sent_at: float | None) -> int:
    """Return how many requests of a trial reached the server after the one that was answered.

    That one is the arrival nearest to the time at which the proxy sent it. A comparison with the end of the answer
    would count it among the late ones now and then: the end is told by a monotonic clock and arrivals by that of the
    day, which was seen to be corrected by some milliseconds in between.
    """
    if sent_at is None or not arrivals:
        return 0
    ordered = sorted(arrivals)
    mine = min(range(len(ordered)), key=lambda place: abs(ordered[place] - sent_at))
    return len(ordered) - mine - 1


def certificate(folder: Path) -> Path:
    """Write a certificate that nobody vouches for, with its key; return the file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody.invalid")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "nobody.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path
