"""Manifests: what a run was made with, compared, and sent again byte for byte."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from probe.cli import cli
from probe.config import load_config
from probe.errors import ConfigError, StoreError
from probe.lab.server import LabServer
from probe.runs.execute import Asked, execute, load_packs
from probe.runs.export import find_run, manifest_of, path_below
from probe.runs.manifest import FORMAT, check_bodies, difference, read_manifest
from probe.runs.money.ledger import Totals
from probe.runs.rerun import RERUN_OF, config_of, rerun, traces_of
from probe.serve.llamacpp import LlamaCppServer
from probe.store.store import Store
from tests.study_kit import hosted_route, local_route, write_config, write_pack

TRACES = 6
SECRET = "sk-or-v1-a-key-that-must-not-travel"


@pytest.fixture
def study(
    tmp_path: Path, toy_server: LlamaCppServer, lab: LabServer, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, dict[str, Any]]:
    """A folder with a run in it, and that run's manifest."""
    assert toy_server.info is not None
    monkeypatch.setenv("LAB_KEY", SECRET)
    write_pack(tmp_path / "pack.jsonl", TRACES, max_tokens=4)
    routes = {
        "local": local_route(toy_server.info.url),
        "hosted": hosted_route(f"{lab.url}/transparent", key_env="LAB_KEY", request={"user": "somebody"}),
    }
    write_config(tmp_path / "probe.toml", routes)
    config = load_config(tmp_path / "probe.toml")
    execute(config, tmp_path / "probe.db", load_packs([str(tmp_path / "pack.jsonl")]), seed=3, repeats=2)
    with Store.open(tmp_path / "probe.db") as store:
        return tmp_path, manifest_of(store, find_run(store, None))


def sent(database: Path, run: str) -> list[tuple[str, str, int, bytes]]:
    """What crossed the wire for a run, in the order of its plan."""
    with Store.open(database) as store:
        positions = {trial.id: trial.position for trial in store.trials(run)}
        routes = store.routes()
        rows = []
        for ref in store.refs(run_id=run, answered=True):
            exchange = store.exchange(ref.id)
            path = path_below(routes[ref.route_id].url, exchange.url)
            rows.append((positions[ref.trial_id or ""], routes[ref.route_id].name, path, exchange.request_body))
    return [(name, path, position, body) for position, name, path, body in sorted(rows)]


def test_a_manifest_has_what_another_lab_needs(study: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = study
    assert manifest["format"] == FORMAT
    assert {"probe", "python", "packages", "system", "clock", "host", "seed", "repeats", "packs"} <= set(manifest)
    local, hosted = manifest["routes"]["local"], manifest["routes"]["hosted"]
    assert len(local["facts"]["weights_sha256"]) == len(local["facts"]["template_sha256"]) == 64
    assert local["facts"]["sampling_defaults"]
    assert (hosted["role"], hosted["twin"], hosted["request"]) == ("hosted", "local", {"user": "somebody"})
    assert len(manifest["traces"]) == TRACES
    # The twin is sent once more, to be compared with itself.
    assert len(manifest["requests"]) == TRACES * (2 + 3)
    assert len(manifest["bodies"]) == TRACES * 2
    check_bodies(manifest)
    text = json.dumps(manifest)
    assert SECRET not in text
    assert str(folder) not in text


def test_a_rerun_sends_the_same_bytes_in_the_same_order(study: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = study
    done = rerun(manifest, load_config(folder / "probe.toml"), folder / "again.db")
    assert done.open == done.failed == 0
    assert sent(folder / "again.db", done.run.id) == sent(folder / "probe.db", manifest["run"])
    assert done.run.manifest[RERUN_OF] == manifest["run"]
    with Store.open(folder / "again.db") as store:
        again = manifest_of(store, done.run)
    assert not [entry for entry in difference(manifest, again) if entry.matters]
    # It is at its end, so that the same command makes another one.
    assert rerun(manifest, load_config(folder / "probe.toml"), folder / "again.db").run.id != done.run.id


def test_a_rerun_does_not_build_requests_anew(study: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = study
    body = next(digest for digest, text in manifest["bodies"].items() if "somebody" in text)
    # As another version of the probe might have written it.
    other = manifest["bodies"].pop(body).replace('"user":"somebody"', '"user" : "somebody"')
    digest = hashlib.sha256(other.encode()).hexdigest()
    manifest["bodies"][digest] = other
    for row in manifest["requests"]:
        row["sha256"] = digest if row["sha256"] == body else row["sha256"]
    done = rerun(manifest, load_config(folder / "probe.toml"), folder / "again.db")
    assert other.encode() in {row[3] for row in sent(folder / "again.db", done.run.id)}


def test_a_part_of_the_routes_can_be_sent_again(study: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = study
    done = rerun(manifest, load_config(folder / "probe.toml"), folder / "again.db", routes=("local",))
    assert done.planned == TRACES * 3


def test_an_unfinished_rerun_is_taken_up(study: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = study
    config = load_config(folder / "probe.toml")
    first = rerun(manifest, config, folder / "again.db", asked=Asked(Totals(requests=5)))
    assert first.open == 2 * TRACES - 5
    second = rerun(manifest, config, folder / "again.db")
    assert (second.run.id, second.resumed, second.open) == (first.run.id, True, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["bodies"].popitem(), "is missing from the manifest"),
        (lambda m: m["bodies"].update(dict.fromkeys(m["bodies"], "{}")), "was changed in the manifest"),
        (lambda m: m["traces"][0]["messages"][0].update(content="another"), "was changed in the manifest"),
        (lambda m: m["traces"][0].pop("sampling"), "cannot be read"),
        (lambda m: m["routes"].update(local="an id"), "can be compared, not rerun"),
        (lambda m: m["routes"]["local"].update(dialect="gemini"), "would not be understood"),
        (lambda m: m["routes"]["local"].update(backend="nobody"), "There is no backend 'nobody'"),
        (lambda m: m["routes"].clear(), "names no routes"),
    ],
)
def test_what_was_changed_is_not_sent(study: tuple[Path, dict[str, Any]], change: Any, words: str) -> None:
    folder, manifest = study
    changed = copy.deepcopy(manifest)
    change(changed)
    with pytest.raises(ConfigError, match=words):
        rerun(changed, None, folder / "again.db")


def test_routes_go_where_they_went_without_a_study_here(study: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = study
    config, here = config_of(manifest, None), load_config(folder / "probe.toml")
    assert {name: route.url for name, route in config.routes.items()} == {
        name: route.url for name, route in here.routes.items()
    }
    assert list(traces_of(manifest)) == [trace["id"] for trace in manifest["traces"]]


def _foreign(manifest: dict[str, Any], url: str) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    changed["routes"]["hosted"]["url"] = url
    return changed


def test_a_manifest_of_others_sends_no_key_to_an_address_of_theirs(study: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = study
    backend = load_config(folder / "probe.toml").routes["hosted"].backend
    with pytest.raises(ConfigError, match="your key would go there too"):
        rerun(_foreign(manifest, "https://collector.example/v1"), None, folder / "again.db")
    with pytest.raises(ConfigError, match="no address that can be asked"):
        config_of(_foreign(manifest, "file:///etc/passwd"), None)
    for url in filter(None, (backend.url, "http://127.0.0.1:1/v1")):
        assert config_of(_foreign(manifest, url), None).routes["hosted"].url == url
    here = load_config(folder / "probe.toml")
    moved = config_of(_foreign(manifest, "https://collector.example/v1"), here).routes["hosted"]
    assert moved.url == here.routes["hosted"].url


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["requests"][0].pop("path"), "entry 1 of requests has no 'path'"),
        (lambda m: m["requests"][1].update(position="first"), "entry 2 of requests has no 'position'"),
        (lambda m: m["requests"][0].update(trace="f" * 64), "a trace or a route that it lacks"),
        (lambda m: m["requests"].append(3), "is int, not an object"),
        (lambda m: m["routes"]["hosted"].pop("url"), "route 'hosted' has no 'url'"),
        (lambda m: m.update(routes=[1]), "the file has no 'routes'"),
        (lambda m: m.update(traces=5), "the file has no 'traces'"),
        (lambda m: m.update(bodies=[]), "the file has no 'bodies'"),
        (lambda m: m.update(seed="x"), "the file has no 'seed'"),
    ],
)
def test_a_damaged_file_is_one_sentence(study: tuple[Path, dict[str, Any]], change: Any, words: str) -> None:
    folder, manifest = study
    changed = copy.deepcopy(manifest)
    change(changed)
    (folder / "damaged.json").write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match=words):
        read_manifest(folder / "damaged.json")


def test_a_file_that_is_nested_too_deeply_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        read_manifest(tmp_path / "deep.json")


def test_differences_are_told_by_what_they_may_change(study: tuple[Path, dict[str, Any]]) -> None:
    _, manifest = study
    assert difference(manifest, manifest) == []
    other = copy.deepcopy(manifest)
    other["run"], other["clock"]["unix"] = "another", 0
    other["routes"]["local"]["url"] = "http://127.0.0.1:1/v1"
    assert not any(entry.matters for entry in difference(manifest, other))
    other["routes"]["local"]["facts"]["template_sha256"] = "0" * 64
    other["requests"].pop()
    found = difference(manifest, other)
    matters = {entry.key.partition(".")[0] for entry in found if entry.matters}
    assert matters == {"requests", "routes"}
    assert "routes.local.facts.template_sha256" in {entry.key for entry in found if entry.matters}
    # What matters comes first.
    assert [entry.matters for entry in found] == sorted((entry.matters for entry in found), reverse=True)


def test_commands(study: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, manifest = study
    monkeypatch.chdir(folder)
    shown = CliRunner().invoke(cli, ["manifest", "show", "--out", "run.json"])
    assert shown.exit_code == 0, shown.output
    assert manifest["run"] in shown.output
    assert read_manifest(folder / "run.json") == json.loads(json.dumps(manifest))
    again = CliRunner().invoke(cli, ["rerun", "run.json", "--db", "again.db", "--json"])
    assert again.exit_code == 0, again.output
    told = json.loads(again.output)
    assert told["open"] == 0
    same = CliRunner().invoke(cli, ["manifest", "diff", "run.json", told["run"], "--db", "again.db", "--json"])
    assert (same.exit_code, json.loads(same.output)["same"]) == (0, True)
    text = CliRunner().invoke(cli, ["manifest", "diff", "run.json", "run.json"])
    assert (text.exit_code, text.output.strip()) == (
        0,
        "Nothing differs that may change an answer: same routes, servers, traces and bytes.",
    )


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "y.json").write_text("no")
    with pytest.raises(ConfigError, match="is no manifest that this version reads"):
        read_manifest(tmp_path / "x.json")
    with pytest.raises(ConfigError, match="it is not JSON"):
        read_manifest(tmp_path / "y.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path / "z.json")
    with Store.open(tmp_path / "probe.db") as store, pytest.raises(StoreError, match="There is no run"):
        find_run(store, None)


@pytest.mark.parametrize(
    ("base", "url", "path"),
    [
        ("https://host/api/v1", "https://host:443/api/v1/chat/completions", "/chat/completions"),
        ("http://h/v1/", "http://h:80/v1/x?alt=sse", "/x?alt=sse"),
        ("http://h", "http://h:80/api/chat", "/api/chat"),
    ],
)
def test_paths_are_told_below_the_route(base: str, url: str, path: str) -> None:
    assert path_below(base, url) == path
