"""Commands of the evidence: prove logs, watch those of others, export a study's bundle, verify bundles offline."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

from ihds.cli.words import OUT, command, open_space, rows_table, show, show_json, show_rows
from ihds.errors import AuditBroken, BadInput


def audit_commands(sub: Any) -> None:
    """Declare ``ihds audit``."""
    verify = command(
        sub,
        "verify",
        "prove the logs of node folders, or verify a study from the bundles institutions exported; offline",
        "ihds audit verify lih ncck us-site\n"
        "  ihds audit verify evidence/*.json --document lih-did.json --result result.json",
        _verify,
        node=False,
    )
    verify.add_argument("path", nargs="+", type=Path, help="node folders, or bundles of all parties of one study")
    verify.add_argument(
        "--document", action="append", default=[], type=Path, help="a DID document the auditor fetched itself"
    )
    verify.add_argument("--result", type=Path, help="the published result (JSON): is it the one of the study?")
    export = command(
        sub,
        "export",
        "write the evidence of a study, a permit or an application for an auditor",
        "ihds audit export urn:uuid:… --out evidence/lih.json --node lih",
        _export,
    )
    export.add_argument("id", nargs="+", help="of the study; at the access body and the authority of the permit")
    export.add_argument("--out", type=Path, required=True)
    text = "list the logs this node witnesses, what it saw of them, and alarms"
    command(sub, "witnesses", text, "ihds audit witnesses --node lih", _witnesses)
    text = "look at the logs this node witnesses now, instead of in a minute"
    command(sub, "look", text, "ihds audit look --node lih", _look)
    accept = command(
        sub,
        "accept",
        "accept the log of another node as it stands after an alarm, once its institution explained it",
        "ihds audit accept did:web:ncck.example --reason 'disk lost, back-up of 3 May' --node lih",
        _accept,
    )
    retention = command(
        sub,
        "retention",
        "show by kind of event until when a log must be kept, by which rule; offline, nothing is deleted",
        "ihds audit retention lih --on 2029-01-01",
        _retention,
        node=False,
    )
    retention.add_argument("folder", type=Path)
    retention.add_argument("--on", type=date.fromisoformat, default=None, help="a day (default: today)")
    accept.add_argument("did")
    accept.add_argument("--reason", required=True, help="recorded in this node's log")


_SEEN = ("log", "size", "at", "alarm")


def _verify(given: Any) -> None:
    if all(path.is_dir() for path in given.path):
        from ihds.roles.node import verify_folder

        rows = [verify_folder(folder) for folder in given.path]
        show_rows(given, rows, ("node", "did", "entries", "proved"))
        return
    from ihds.roles.auditor import audit

    found = audit(
        [_read(p) for p in given.path], [_read(p) for p in given.document], given.result and _read(given.result)
    )
    rows = [{**c.to_dict(), "holds": "yes" if c.holds else "NO"} for c in found]
    wrong = [c for c in found if not c.holds]
    if given.json:
        show_json([c.to_dict() for c in found])
    else:
        rows_table(rows, ("check", "of", "holds", "says"))
        OUT.print(f"{len(found) - len(wrong)} of {len(found)} checks hold")
    if wrong:
        raise AuditBroken(
            f"{len(wrong)} of {len(found)} checks do not hold",
            reasons=tuple(f"{c.check}, {c.of}: {c.says}" for c in wrong),
            remedy="ask the institutions named for their bundle again; then for their explanation",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path} cannot be read: {error}", remedy="give files of ihds audit export") from error


def _export(given: Any) -> None:
    if not given.out.parent.is_dir():
        raise BadInput(f"there is no folder {given.out.parent}", remedy="make it first")
    bundle = open_space(given).call("audit.export", ids=given.id)
    given.out.write_text(json.dumps(bundle, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    size = bundle["log"]["checkpoint"]["size"]
    answer = {"file": str(given.out), "events": len(bundle["log"]["events"]), "entries": size}
    answer["witnesses"] = len(bundle["witnesses"])
    text = "{events} of {entries} entries and {witnesses} statements of witnesses are in {file}"
    show(given, answer, text.format(**answer))


def entries_of(path: Path) -> tuple[str, str, list[dict[str, Any]]]:
    """Return the name, country and entries of a node's folder, proved first, or of a bundle."""
    if not path.is_dir():
        from ihds.roles.auditor import Bundle

        bundle = Bundle(_read(path))
        return bundle.name, str(bundle.body.get("country", "")), bundle.events
    from ihds.roles.folders import entries
    from ihds.roles.node import verify_folder

    proved = verify_folder(path)
    found = entries(path)
    return str(proved["node"]), str(found[0]["details"].get("country", "")), found


def _retention(given: Any) -> None:
    from ihds.audit.log import now
    from ihds.governance.retention import standing

    _, country, entries = entries_of(given.folder)
    rows = standing(entries, country, given.on or now().date())
    show_rows(given, rows, ("kind", "entries", "oldest", "kept_until", "may_go", "rule", "certainty"))


def _witnesses(given: Any) -> None:
    show_rows(given, open_space(given).call("witness.list"), _SEEN)


def _look(given: Any) -> None:
    show_rows(given, open_space(given).call("witness.look"), _SEEN)


def _accept(given: Any) -> None:
    answer = open_space(given).call("witness.accept", did=given.did, reason=given.reason)
    show(given, answer, f"the log of {answer['log']} is accepted as it stands; the next look begins anew")
