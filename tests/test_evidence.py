"""Witnesses, bundles and the auditor, over seven real nodes."""

from __future__ import annotations

import base64
import copy
import json
import random
import sqlite3
from dataclasses import replace

import pytest

from ihds import errors
from ihds.audit.log import Event, Log
from ihds.canonical import canonical_json, digest
from ihds.cli import main
from ihds.cohorts.bladder_cancer import codebook
from ihds.demo import CURVES
from ihds.roles.auditor import audit
from ihds.roles.config import NodeConfig
from ihds.roles.node import verify_folder
from ihds.store.store import Store
from ihds.wire.jose import SigningKey
from ihds.wire.keys import Keyring
from tests.space import Space, running

SITTING = {"lih": "Ada", "ncck": "Bo", "us-site": "Cy"}


def charter(nodes) -> None:
    """Give the data space a steering committee, before the nodes start."""
    text = 'require = ["approve-codebook"]\n[steering]\ntitle = "Steering"\nquorum = "2/3"\n'
    text += 'decides = ["suspend", "reinstate", "approve-codebook"]\n'
    for name, person in SITTING.items():
        seat = {"member": nodes.configs[name].did, "person": person}
        text += "[[steering.seats]]\nsince = 2020-01-01\nuntil = 2099-12-31\n"
        text += "".join(f'{k} = "{v}"\n' for k, v in seat.items())
    folder = nodes.folder / "authority"
    (folder / "charter.toml").write_text(text)
    replace(nodes.configs["authority"], charter="charter.toml").write(folder)


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Space:
    with running(tmp_path_factory.mktemp("evidence"), charter) as nodes:
        yield nodes


def speak(space, name, *words) -> int:
    return main(["committee", *words, "--person", SITTING[name], "--node", str(space.folder / name)])


@pytest.fixture(scope="module")
def approved(space) -> str:
    """A study is refused until two of three seats carry the motion that approves its codebook."""
    permit = space.permit()
    researcher = space.space("researcher")
    with pytest.raises(errors.Refused) as caught:
        researcher.run("kaplan_meier", permit=permit, formula=CURVES)
    assert "uses approved versions only: approve-codebook" in str(caught.value)
    with pytest.raises(errors.Refused, match="the Steering decides this"):
        space.space("authority").call("member.decide", did=space.configs["ncck"].did, event="suspend")
    subject = digest(codebook().to_dict())
    ask = {"body": "steering", "matter": "approve-codebook", "subject": subject, "person": SITTING["lih"]}
    motion = space.space("lih").call("committee.propose", **ask)["motion"]["id"]
    assert speak(space, "lih", "vote", motion, "yes") == 0
    assert speak(space, "ncck", "vote", motion, "yes") == 0
    assert speak(space, "us-site", "vote", motion, "no") == 12, "it is decided"
    for name in SITTING:  # those who read the list a moment ago read it again
        space.kill(name)
        space.start(name)
    space.wait()
    return motion


def test_the_committee_approves_a_codebook_and_only_then_a_study_runs(space, approved, tmp_path, capsys):
    assert main(["committee", "list", "--node", str(space.folder / "researcher")]) == 0
    assert "CARRIED" in capsys.readouterr().out
    codebook().write(tmp_path / "book.toml")
    again = ("propose", "steering", "approve-codebook", str(tmp_path / "book.toml"))
    assert speak(space, "lih", *again) == 16
    assert "approved already" in capsys.readouterr().err, "the file's digest is the one approved"
    assert space.space("researcher").run("kaplan_meier", permit=space.permit(), formula=CURVES).n > 100


@pytest.fixture(scope="module")
def bundles(space, approved):
    """One study, and what every institution exported of it."""
    permit = space.permit()
    result = space.space("researcher").run("kaplan_meier", permit=permit, formula=CURVES)
    study = result.provenance["study"]
    ids = {"researcher": [study], "access-body": [permit], "authority": [permit]}
    return {n: space.space(n).call("audit.export", ids=ids.get(n, [study])) for n in space.configs}


def wrong(bodies, **more) -> set[tuple[str, str]]:
    return {(c.check, c.of) for c in audit(bodies, **more) if not c.holds}


def test_a_study_is_verified_from_permit_to_result(bundles):
    found = audit(bundles.values())
    assert [c for c in found if not c.holds] == []
    assert len(found) > 35


def sealed(space, name, body) -> dict:
    """Sign a changed bundle again, as its institution could."""
    config = NodeConfig.read(space.folder / name)
    ring = Keyring(space.folder / name, config.did, config.passphrase_file)
    rest = {k: v for k, v in body.items() if k != "signature"}
    return {**rest, "signature": ring.sign(canonical_json(rest))}


def leaves(value, path=()):
    """Yield the path of every text, number and flag of a JSON value."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


def altered(body, path):
    changed = copy.deepcopy(body)
    at = changed
    for step in path[:-1]:
        at = at[step]
    old = at[path[-1]]
    at[path[-1]] = not old if isinstance(old, bool) else old + 1 if isinstance(old, (int, float)) else f"{old}x"
    return changed


def test_whatever_is_altered_in_whichever_file_is_found(bundles):
    """A stranger changes one value: the seal of that bundle breaks, or it cannot be read at all."""
    draw = random.Random(4)
    for name, body in bundles.items():
        paths = [p for p in leaves(body) if p[0] not in ("signature",)]
        for path in [*draw.sample(paths, 12), ("signature",)]:
            others = [b for n, b in bundles.items() if n != name]
            try:
                found = wrong([*others, altered(body, path)])
            except errors.IhdsError:
                continue
            assert found, (name, path)


def test_a_missing_file_is_named(bundles):
    for name in ("lih", "access-body", "authority"):
        assert ("every party's bundle is here", "study") in wrong([b for n, b in bundles.items() if n != name])
    with pytest.raises(errors.BadMessage, match="bundle of one user"):
        audit([b for n, b in bundles.items() if n != "researcher"])


LOG, ROUNDS = "events stand in the signed log", "rounds are those the user opened"


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("ncck", lambda b: events(b, "round.answered")[0]["entry"]["details"].update(bytes=1), LOG),
        ("ncck", lambda b: drop(b, "round.answered", slice(0, 1)), ROUNDS),
        ("ncck", lambda b: drop(b, "round.answered", slice(-1, None)), ROUNDS),
        ("environment", lambda b: drop(b, "study.round", slice(-1, None)), ROUNDS),
        ("ncck", lambda b: b["log"]["events"].reverse(), LOG),
        ("ncck", lambda b: b["log"]["events"].append(b["log"]["events"][-1]), LOG),
        ("lih", lambda b: events(b, "study.opened")[0]["entry"].update(position=3), LOG),
        ("access-body", lambda b: drop(b, "permit.granted"), "permit was granted by the body it names"),
        (
            "access-body",
            lambda b: b["facts"]["permits"][0].update(max_rounds=9),
            "permit was granted by the body it names",
        ),
        ("authority", lambda b: drop(b, "member.advanced"), "parties were members at every round"),
        ("lih", lambda b: b["facts"]["studies"][0]["study"].update(method="cox"), "study is the same everywhere"),
        ("us-site", lambda b: drop(b, "study.opened"), "study is the same everywhere"),
        ("researcher", lambda b: b["facts"]["studies"][0]["result"].update(n=1), "result is the one logged"),
        ("researcher", lambda b: drop(b, "study.received"), "result is the one logged"),
        ("researcher", lambda b: drop(b, "study.witnessed"), "result is the one logged"),
        ("environment", lambda b: drop(b, "study.finished"), "result is the one logged"),
        ("lih", lambda b: b.update(witnesses=[]), "witnesses saw this log"),
        ("lih", lambda b: b.update(trust=b["witnesses"][0]["statement"]), "access body and parties are trusted"),
        ("lih", lambda b: b["witnesses"].__setitem__(slice(None), bad_statement(b)), "witnesses saw this log"),
        ("lih", lambda b: b["log"]["checkpoint"].update(size=99), LOG),
    ],
)
def test_what_an_institution_alters_in_its_own_evidence_is_found_and_named(space, bundles, name, change, check):
    body = copy.deepcopy(bundles[name])
    change(body)
    others = [b for n, b in bundles.items() if n != name]
    found = wrong([*others, sealed(space, name, body)])
    assert check in {c for c, _ in found}
    assert ("bundle is signed by its maker", name) not in found


def events(body, kind):
    return [e for e in body["log"]["events"] if e["entry"]["kind"] == kind]


def drop(body, kind, among=slice(None)) -> None:
    gone = events(body, kind)[among]
    body["log"]["events"] = [e for e in body["log"]["events"] if e not in gone]


def bad_statement(body):
    head, claims, signature = body["witnesses"][0]["statement"].split(".")
    return [{**body["witnesses"][0], "statement": f"{head}.{claims}.{signature[::-1]}"}]


def repermit(body, **changes) -> None:
    """Change the permit inside its credential; the signature stays, so that check fails as well."""
    at = body["facts"]["credentials"]
    for n, token in enumerate(at):
        head, claims, signature = token.split(".")
        told = json.loads(base64.urlsafe_b64decode(claims + "=="))
        told["vc"]["credentialSubject"]["permit"].update(changes)
        at[n] = ".".join([head, base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("="), signature])


def add(body, kind, **details) -> None:
    entry = {
        **body["log"]["events"][-1]["entry"],
        "kind": kind,
        "at": "2026-01-01T00:00:00.000+00:00",
        "details": details,
    }
    body["log"]["events"].append({"entry": entry, "proof": []})


STRICT = {"min_cell": 50, "min_site_persons": 10, "min_holders": 3, "min_level_sites": 2, "parameters_per_row": 0.1}
BROKEN = "nothing was answered after a revocation"


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("access-body", lambda b, p: add(b, "permit.revoked", permit=p), BROKEN),
        ("access-body", lambda b, p: add(b, "permit.granted", supersedes=p), BROKEN),
        ("researcher", lambda b, p: repermit(b, max_rounds=1), "budget of the permit was kept"),
        ("researcher", lambda b, p: repermit(b, thresholds=STRICT), "thresholds are no weaker than the permit's"),
        (
            "researcher",
            lambda b, p: repermit(b, expires_at="2026-01-01T00:00:00+00:00"),
            "permit was in force at every round",
        ),
        ("researcher", lambda b, p: repermit(b, purpose="statistics"), "permit was in force at every round"),
        ("researcher", lambda b, p: repermit(b, variables=["age"]), "permit was in force at every round"),
        ("researcher", lambda b, p: repermit(b, methods=["cox"]), "permit was in force at every round"),
        (
            "lih",
            lambda b, p: events(b, "study.opened")[0]["entry"].update(kind="study.asked"),
            "study is the same everywhere",
        ),
        (
            "authority",
            lambda b, p: b.update(trust=b["trust"][:-9] + "AAAAAAAAA"),
            "access body and parties are trusted",
        ),
    ],
)
def test_each_breach_of_a_permit_is_named(bundles, name, change, check):
    permit = bundles["researcher"]["facts"]["studies"][0]["study"]["permit"]
    body = copy.deepcopy(bundles[name])
    change(body, permit)
    assert check in {c for c, _ in wrong([*(b for n, b in bundles.items() if n != name), body])}


def test_an_institution_that_makes_up_everything_with_fresh_keys_is_found(space, bundles):
    """Even its own DID document in its bundle does not help: the others know its keys."""
    body = copy.deepcopy(bundles["lih"])
    key = SigningKey.new(f"{body['node']}#key-9")
    method = {"id": key.kid, "type": "JsonWebKey2020", "controller": body["node"], "publicKeyJwk": key.public_jwk()}
    document = body["documents"][body["node"]]
    document["verificationMethod"].append(method)
    document["assertionMethod"].append(key.kid)
    rest = {k: v for k, v in body.items() if k != "signature"}
    forged = {**rest, "signature": key.sign(canonical_json(rest))}
    assert ("bundle is signed by its maker", "lih") in wrong([*(b for n, b in bundles.items() if n != "lih"), forged])
    given = {"id": body["node"], "assertionMethod": [], "verificationMethod": []}
    assert ("bundle is signed by its maker", "lih") in wrong(bundles.values(), trusted=[given])


def test_the_commands_export_and_verify(space, bundles, tmp_path, capsys):
    study = bundles["researcher"]["facts"]["studies"][0]
    node = str(space.folder / "lih")
    assert main(["audit", "export", study["study"]["id"], "--out", str(tmp_path / "lih.json"), "--node", node]) == 0
    for name in set(bundles) - {"lih"}:
        (tmp_path / f"{name}.json").write_text(json.dumps(bundles[name]))
    (tmp_path / "result").write_text(json.dumps(study["result"]))
    files = [str(p) for p in tmp_path.glob("*.json")]
    assert main(["audit", "verify", *files, "--result", str(tmp_path / "result")]) == 0
    capsys.readouterr()
    (tmp_path / "result").write_text(json.dumps({**study["result"], "n": 1}))
    assert main(["audit", "verify", *files, "--result", str(tmp_path / "result"), "--json"]) == 17
    told = [c for c in json.loads(capsys.readouterr().out.split("\n]\n")[0] + "\n]") if not c["holds"]]
    assert [c["check"] for c in told] == ["published result is that of the study"]


def test_a_node_that_rewrites_or_rolls_back_its_log_alone_is_caught_by_its_witnesses(space, bundles):
    """One replays its log with its own key and one entry changed; another puts back last week's database."""
    permit = bundles["researcher"]["facts"]["studies"][0]["study"]["permit"]
    lih = space.folder / "lih/store.sqlite"
    with sqlite3.connect(lih) as old:
        old.execute("VACUUM INTO ?", (str(space.folder / "old.sqlite"),))
    space.space("researcher").run("logrank", permit=permit, formula=CURVES)
    for name in space.configs:
        space.space(name).call("witness.look")
    for name in ("ncck", "lih"):
        space.kill(name)
    rewrite(space.folder / "ncck")
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        (space.folder / "lih" / name).unlink(missing_ok=True)
    (space.folder / "old.sqlite").replace(lih)
    for name in ("ncck", "lih"):
        space.start(name)
    space.wait()
    assert verify_folder(space.folder / "ncck")["proved"], "the forger has the key: its log alone proves itself"
    ncck, forgetful = (NodeConfig.read(space.folder / n).did for n in ("ncck", "lih"))
    told = {}
    for name in space.configs:
        for row in space.space(name).call("witness.look"):
            told.setdefault(row["log"], []).append(row["alarm"])
    assert len(told[ncck]) == len(told[forgetful]) == 3, "three witnesses each"
    assert all("do not begin with" in alarm for alarm in told[ncck])
    assert all("rolled back" in alarm for alarm in told[forgetful])
    assert all(not alarm for log in set(told) - {ncck, forgetful} for alarm in told[log])
    watching = [n for n in space.configs if alarms(space, n)]
    before = {n: alarms(space, n) for n in watching}
    for name in watching:
        space.space(name).call("witness.look")
    assert {n: alarms(space, n) for n in watching} == before, "an alarm is written once"
    with pytest.raises(errors.NotFound):
        space.space(watching[0]).http.get_json(f"{space.configs[watching[0]].base_url}/checkpoint/witnessed/{ncck}")
    body = space.space("ncck").call("audit.export", ids=[permit])
    assert body["witnesses"] == [], "nobody signs for it any more"
    for name in watching:
        for row in space.space(name).call("witness.list"):
            if row["alarm"]:
                space.space(name).call("witness.accept", did=row["log"], reason="explained")
        assert not any(row["alarm"] for row in space.space(name).call("witness.look"))


def alarms(space, name) -> int:
    return sum(e["kind"] == "witness.alarm" for e in space.entries(name))


def rewrite(folder) -> None:
    """Replay a log with one entry changed, signed with the node's own key at every step."""
    config = NodeConfig.read(folder)
    url = config.store_url(folder)
    ring = Keyring(folder, config.did, config.passphrase_file)
    store = Store(url)
    entries = [json.loads(text) for text in store.read()]
    store.close()
    with sqlite3.connect(folder / "store.sqlite") as database:
        database.execute("DELETE FROM log")
        database.execute("UPDATE head SET body = ''")
    store = Store(url)
    log = Log(store, config.did, ring)
    for entry in entries:
        changed = {**entry["details"], "bytes": 1} if entry["kind"] == "round.answered" else entry["details"]
        log.commit(Event(entry["kind"], entry["actor"], changed))
    store.close()


def test_each_role_tells_what_it_processes_and_a_year_is_reviewed(space, bundles, tmp_path, capsys):
    for name in ("lih", "access-body", "authority", "researcher"):
        facts = space.space(name).call("gdpr.facts")
        assert facts["events"]["node.created"] == 1
        assert [p["purpose"] for p in facts["permits"]][:1] == ([] if name == "authority" else ["scientific_research"])
    assert main(["gdpr", "records", "--out", str(tmp_path / "r.html"), "--node", str(space.folder / "lih")]) == 0
    assert "bladder-lih" in (tmp_path / "r.html").read_text()
    for name in ("lih", "researcher"):
        (tmp_path / f"{name}.json").write_text(json.dumps(bundles[name]))
    capsys.readouterr()
    year = bundles["lih"]["made_at"][:4]
    paths = [str(space.folder / n) for n in ("authority", "access-body")]
    paths += [str(tmp_path / f"{n}.json") for n in ("lih", "researcher")]
    assert main(["committee", "review", year, *paths, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["studies"]["finished"] >= 1
    assert all(d["in_time"] for d in facts["decisions"])
    assert [b["outcome"] for b in facts["bodies"]] == ["CARRIED"]
    assert any("approved versions only" in r["reason"] for r in facts["refusals"]) or facts["budget"]
    assert main(["audit", "retention", str(space.folder / "lih")]) == 0
    assert "RET-STUDY" in capsys.readouterr().out
