"""An auditor's checks of a study, from permit to result, on nothing but the bundles institutions exported.

Trust: each bundle is checked against the DID documents that the *other* institutions (or the auditor's own
files) hold of its maker; institutions that all collude can show a story of their own. Instants are those
each institution wrote; ``LEEWAY`` covers their clocks and the time a revocation takes to arrive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ihds.audit import merkle
from ihds.audit.witnessing import Checkpoint, grown, witnesses
from ihds.canonical import canonical_json, digest
from ihds.connector.dcp.credentials import PERMIT, permission_type, read
from ihds.errors import BadMessage, IhdsError, NotAuthenticated
from ihds.federation.study import Study
from ihds.governance.permit import Permit, PermitState, Use, decide
from ihds.governance.policy import Refused
from ihds.roles.evidence import FORMAT
from ihds.wire.did import statement_keys
from ihds.wire.jose import read_unverified, verify_bytes, verify_jwt

#: How far clocks of institutions may differ, and how long a revocation may take to reach a holder.
LEEWAY = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing an auditor looked at: of whom, whether it holds, and what was found."""

    check: str
    of: str
    holds: bool
    says: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"check": self.check, "of": self.of, "holds": self.holds, "says": self.says}


Found = Iterator[str]


class Bundle:
    """One institution's evidence, read but not believed."""

    def __init__(self, body: dict[str, Any]) -> None:
        """Read it.

        Raises:
            BadMessage: it is not a bundle.

        """
        try:
            self.body = body
            self.did, self.name, self.role = str(body["node"]), str(body["name"]), str(body["role"])
            self.documents: dict[str, Any] = dict(body["documents"])
            self.facts: dict[str, Any] = dict(body["facts"])
            self.events: list[dict[str, Any]] = [dict(e["entry"]) for e in body["log"]["events"]]
            told, _ = body["log"]["checkpoint"], len(body["witnesses"])
            self.checkpoint = Checkpoint(str(told["log"]), int(told["size"]), str(told["root"]), str(told["signature"]))
            self.thumbs = [digest(k["jwk"])[:16] for k in body["keys"]]
            if body["format"] != FORMAT:
                raise ValueError(f"format {body['format']!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadMessage(f"this is not a bundle of evidence: {error!r}", remedy="ihds audit export") from error

    def of(self, *kinds: str, **details: str) -> list[dict[str, Any]]:
        """Return the events of these kinds with these details."""
        return [
            e for e in self.events if e["kind"] in kinds and all(e["details"].get(k) == v for k, v in details.items())
        ]


def audit(
    bodies: Iterable[dict[str, Any]], trusted: Iterable[dict[str, Any]] = (), published: dict[str, Any] | None = None
) -> list[Check]:
    """Return every check of a study.

    ``trusted`` are DID documents the auditor fetched itself, ``published`` the result as it was published.

    Raises:
        BadMessage: something is not a bundle, or the bundles name no study.

    """
    auditor = Auditor([Bundle(b) for b in bodies], {str(d.get("id")): d for d in trusted})
    found = list(auditor.checks())
    if published is not None:
        same = digest(published) == digest(auditor.fact["result"])
        said = "digest " + digest(published)[:16] if same else "the file is not the result of this study"
        found.append(Check("published result is that of the study", "result", same, said))
    return found


class Auditor:
    """Checks bundles of one study."""

    def __init__(self, bundles: list[Bundle], trusted: dict[str, Any]) -> None:
        """Find the study.

        Raises:
            BadMessage: there is none, or more than one.

        """
        self.bundles, self.trusted = bundles, trusted
        users = [b for b in bundles if b.role == "user" and b.facts.get("studies")]
        if len(users) != 1 or len(users[0].facts["studies"]) != 1:
            raise BadMessage("these bundles do not hold the bundle of one user on one study", remedy="export it there")
        self.user = users[0]
        self.fact = self.user.facts["studies"][0]
        self.study = Study.from_dict(self.fact["study"])
        credentials = [read(t) for t in self.user.facts.get("credentials", [])]
        permits = [c for c in credentials if c.subject.get("permit", {}).get("id") == self.study.permit]
        if len(permits) != 1:
            raise BadMessage(f"the bundle of {self.user.name} does not hold permit {self.study.permit}")
        self.credential = permits[0]
        self.permit = Permit.from_dict(self.credential.subject["permit"])
        self.by_did = {b.did: b for b in bundles}
        self.runner = self.by_did.get(self.permit.asker)  # the environment, or else the user
        self.holders = [self.by_did[h] for h in self.study.holders if h in self.by_did]
        self.authorities = [b for b in bundles if b.role == "authority"]

    def checks(self) -> Iterator[Check]:
        """Yield every check."""
        yield _check("every party's bundle is here", "study", self._parties(), f"{len(self.bundles)} bundles")
        for b in self.bundles:
            yield _check("bundle is signed by its maker", b.name, self._seal(b), self._thumb(b))
            span = f"{len(b.events)} of {b.checkpoint.size} entries"
            yield _check("events stand in the signed log", b.name, self._log(b), span)
            yield _check("witnesses saw this log", b.name, self._witnessed(b), f"{len(b.body['witnesses'])} statements")
        body = self.by_did.get(self.permit.access_body)
        yield _check("access body and parties are trusted", "authority", self._trust(), "by the signed trust list")
        yield _check("permit was granted by the body it names", "permit", self._granted(body), self.permit.id)
        yield _check("study is the same everywhere", "study", self._same(), f"digest {self.study.digest()[:16]}")
        yield _check("thresholds are no weaker than the permit's", "study", self._thresholds(), "field by field")
        for b in self.holders:
            rounds = b.of("round.answered", study=self.study.id)
            yield _check("permit was in force at every round", b.name, self._in_force(b), f"{len(rounds)}")
            yield _check("rounds are those the user opened", b.name, self._rounds(b), f"{len(rounds)}")
            yield _check("budget of the permit was kept", b.name, self._budget(b), self._spent(b))
            yield _check("nothing was answered after a revocation", b.name, self._revoked(b, body), "none")
        yield _check("parties were members at every round", "authority", self._members(), "admitted, not suspended")
        yield _check("result is the one logged", "result", self._result(), digest(self.fact["result"])[:16])

    # -- each bundle by itself ---------------------------------------------------------------------

    def _parties(self) -> Found:
        named = {"user": self.study.user, "environment": self.permit.asker, "access body": self.permit.access_body}
        named |= {f"holder {n + 1}": h for n, h in enumerate(self.study.holders)}
        yield from (
            f"the bundle of the {what} {did} is missing" for what, did in named.items() if did not in self.by_did
        )
        if len(self.by_did) != len(self.bundles):
            yield "an institution's bundle is here twice"
        if not self.authorities:
            yield "the bundle of the authority is missing"
        if self.study.user != self.user.did:
            yield f"the study is that of {self.study.user}, not of {self.user.did}"

    def _keys(self, did: str, shown_by: str) -> dict[str, dict[str, Any]]:
        """Return the keys of an institution by id: those every other bundle knows, or the auditor's own file.

        Neither the institution nor who shows what it signed is asked, so one honest party is enough.

        Raises:
            NotAuthenticated: nobody else knows it, or they disagree.

        """
        others = [b.documents[did] for b in self.bundles if did in b.documents and b.did not in (did, shown_by)]
        copies = [self.trusted[did]] if did in self.trusted else others
        if not copies:
            raise NotAuthenticated(f"no other bundle and no file of the auditor shows the keys of {did}")
        each = []
        for copy in copies:
            statement_keys(copy)  # it can be read
            each.append({str(m["id"]): dict(m["publicKeyJwk"]) for m in copy["verificationMethod"]})
        found = {kid: jwk for kid, jwk in each[0].items() if all(other.get(kid) == jwk for other in each)}
        if not found:
            raise NotAuthenticated(f"the bundles agree on no key of {did}")
        return found

    def _signed(self, did: str, data: bytes, signature: str, shown_by: str) -> bool:
        return any(verify_bytes(data, signature, jwk) for jwk in self._keys(did, shown_by).values())

    def _claims(self, token: str, did: str, shown_by: str) -> dict[str, Any]:
        """Return the claims of a token that an institution signed. Raises NotAuthenticated."""
        kid = str(read_unverified(token)[0].get("kid"))
        keys = self._keys(did, shown_by)
        if kid not in keys:
            raise NotAuthenticated(f"{kid} is no key of {did} that the others know")
        return verify_jwt(token, keys[kid])

    def _thumb(self, b: Bundle) -> str:
        return f"{b.did}, keys {', '.join(b.thumbs)}"

    def _seal(self, b: Bundle) -> Found:
        rest = {k: v for k, v in b.body.items() if k != "signature"}
        if not self._signed(b.did, canonical_json(rest), str(b.body.get("signature")), b.did):
            yield "the bundle was changed after it was made, or another made it"

    def _log(self, b: Bundle) -> Found:
        point = b.checkpoint
        if point.log != b.did or not self._signed(b.did, point.text.encode(), point.signature, b.did):
            yield f"the checkpoint over {point.size} entries is not signed by {b.did}"
        last = -1
        for given in b.body["log"]["events"]:
            entry, at = given["entry"], int(given["entry"]["position"])
            path = [bytes.fromhex(h) for h in given["proof"]]
            leaf = merkle.leaf_hash(canonical_json(entry))
            if not merkle.verify_inclusion(leaf, at, point.size, path, bytes.fromhex(point.root)):
                yield f"entry {at} ({entry['kind']}) does not stand in the log as it is here"
            if at <= last:
                yield f"entry {at} stands after entry {last}"
            last = at
        if not b.events or b.events[0]["kind"] != "node.created":
            yield "the making of the node is missing"

    def _witnessed(self, b: Bundle) -> Found:
        members = self._members_listed()
        due = witnesses(b.did, members)
        last = max((int(e["position"]) for e in b.events), default=-1)
        seen = set()
        for given in b.body["witnesses"]:
            who = str(read_unverified(given["statement"])[1].get("iss"))
            claims = self._claims(given["statement"], who, b.did)
            told = Checkpoint.read(b.did, claims, lambda data, text: self._signed(b.did, data, text, b.did))
            if claims.get("sub") != b.did or who not in due:
                yield f"{who} is not a witness of this log"
            elif why := grown(told, b.checkpoint, given["consistency"]):
                yield f"what {who} saw is another history: {why}"
            elif told.size > last:
                seen.add(who)
        if due and not seen:
            yield f"none of its witnesses ({', '.join(due)}) signed a log that holds entry {last}"

    # -- the permit --------------------------------------------------------------------------------

    def _listed(self) -> dict[str, Any]:
        """Return the authority's trust list. Raises NotAuthenticated."""
        if len(self.authorities) != 1:
            raise NotAuthenticated("there is not one bundle of an authority")
        authority = self.authorities[0]
        return self._claims(str(authority.body["trust"]), authority.did, authority.did)

    def _members_listed(self) -> dict[str, str]:
        found = {str(m["did"]): str(m["country"]) for m in self._listed()["members"]}
        return {**found, self.authorities[0].did: found.get(self.authorities[0].did, "")}

    def _trust(self) -> Found:
        issuers = self._listed()["issuers"].get(PERMIT, [])
        if self.permit.access_body not in issuers:
            yield f"{self.permit.access_body} is not trusted to issue permits"
        for b in self.bundles:
            asked = str(read_unverified(str(b.body["trust"]))[1].get("iss"))
            if asked != self.authorities[0].did or "issuers" not in self._claims(b.body["trust"], asked, b.did):
                yield f"{b.name} shows no trust list of this data space but one of {asked}"

    def _granted(self, body: Bundle | None) -> Found:
        self._claims(self.credential.token, self.permit.access_body, self.user.did)
        if self.credential.issuer != self.permit.access_body or (
            permission_type(self.permit.legal_regime) not in self.credential.types
        ):
            yield f"the permit was issued by {self.credential.issuer}"
        if self.credential.holder != self.permit.user:
            yield f"the credential was given to {self.credential.holder}"
        if body is None:
            yield "the access body's bundle is missing"
            return
        if self.permit.to_dict() not in body.facts.get("permits", []):
            yield "the access body knows another permit of this id, or none"
        granted = body.of("permit.granted", permit=self.permit.id)
        if len(granted) != 1:
            yield f"its log holds {len(granted)} grants of this permit"
        begun = self._run("study.started")
        if granted and begun and _at(begun[0]) + LEEWAY < _at(granted[0]):
            yield "the study began before the grant"

    def _in_force(self, b: Bundle) -> Found:
        dataset = self.permit.dataset_of(b.did)
        variables = frozenset(self.study.plan().variables)
        holders = frozenset(map(str, self.study.holders))
        words = (self.study.user, b.did, dataset or "", self.study.purpose, self.study.method)
        use = Use(*words, variables=variables, holders=holders, person=self.study.person)
        for entry in b.of("round.answered", study=self.study.id):
            at = _at(entry)
            issued = replace(self.permit, issued_at=self.permit.issued_at - LEEWAY)
            decision = decide(issued, PermitState.GRANTED, use, at)
            if isinstance(decision, Refused):
                yield from (f"round {entry['details']['round']}: {reason}" for reason in decision.reasons)

    def _revoked(self, b: Bundle, body: Bundle | None) -> Found:
        if body is None:
            yield "the access body's bundle is missing"
            return
        ends = body.of("permit.revoked", permit=self.permit.id) + body.of("permit.granted", supersedes=self.permit.id)
        for end in ends:
            late = [e for e in b.of("round.answered", permit=self.permit.id) if _at(e) > _at(end) + LEEWAY]
            yield from (f"round {e['details']['round']} at {e['at']}, {end['kind']} at {end['at']}" for e in late)

    # -- the study -----------------------------------------------------------------------------------

    def _same(self) -> Found:
        name = self.study.digest()
        for b in self.holders:
            held = [s["study"] for s in b.facts.get("studies", []) if s["study"]["id"] == self.study.id]
            if held != [self.fact["study"]]:
                yield f"{b.name} took part in another study under this id, or in none"
            opened = [e for e in b.of("study.opened", "study.asked", study=self.study.id) if "digest" in e["details"]]
            if [e["details"]["digest"] for e in opened] != [name]:
                yield f"the log of {b.name} names another study"
            if b.of("study.asked", study=self.study.id) and not b.of("study.approved", study=self.study.id):
                yield f"no person of {b.name} approved the study"
        if [e["details"].get("digest") for e in self._run("study.started")] != [name]:
            yield "the log of who ran it names another study"

    def _thresholds(self) -> Found:
        if self.study.thresholds.strictest(self.permit.thresholds) != self.study.thresholds:
            yield "the study was run under weaker thresholds"

    def _rounds(self, b: Bundle) -> Found:
        lost = [e for e in self._run(*_ROUND) if b.did in e["details"].get("missing", ())]
        opened = [(_attempt(e), e["details"].get("digest")) for e in self._run(*_ROUND) if e not in lost]
        answered = [(_attempt(e), e["details"]["digest"]) for e in b.of(*_ANSWER, study=self.study.id)]
        if [n for n, _ in answered] != list(range(len(answered))):
            yield f"the rounds answered are {[n for n, _ in answered]}: some are missing or twice"
        if missing := [n for n, _ in opened if n not in dict(answered)]:
            yield f"the user opened the rounds {missing}, which are not here"
        known = {*dict(opened), *(_attempt(e) for e in self._run("study.restarted"))}
        may = 0 if self._run("study.finished") and not lost else 1
        if surplus := [n for n, _ in answered if n not in known][may:]:
            yield f"the rounds {surplus} were answered but are not in the user's log"
        for number, asked in opened:
            if dict(answered).get(number, asked) != asked:
                yield f"round {number} asked something else here"

    def _run(self, *kinds: str) -> list[dict[str, Any]]:
        return self.runner.of(*kinds, study=self.study.id) if self.runner else []

    def _spent(self, b: Bundle) -> str:
        return f"{len(b.of(*_ANSWER, permit=self.permit.id))} of {self.permit.max_rounds} rounds"

    def _budget(self, b: Bundle) -> Found:
        if len(b.of(*_ANSWER, permit=self.permit.id)) > self.permit.max_rounds:
            yield f"more than {self.permit.max_rounds} rounds were answered"

    def _members(self) -> Found:
        instants = [_at(e) for b in self.holders for e in b.of(*_ANSWER, study=self.study.id)]
        if not self.authorities:
            yield "the bundle of the authority is missing"
            return
        for did in (self.study.user, self.permit.asker, self.permit.access_body, *self.study.holders):
            advanced = self.authorities[0].of("member.advanced", "motion.decided", member=did)
            states = [(_at(e), str(e["details"]["state"])) for e in advanced]
            for at in instants:
                before = [state for when, state in states if when <= at]
                if not before or before[-1] != "MEMBER":
                    yield f"{did} was {before[-1] if before else 'no member'} at {at.isoformat()}"
                    break

    def _result(self) -> Found:
        ended = self.user.of("study.finished", "study.received", "study.witnessed", study=self.study.id)
        released = [e["details"].get("result") for e in self._run("study.finished")]
        got = [e["details"].get("result") for e in self.user.of("study.received", study=self.study.id)]
        if self.permit.environment and (len(got) != 1 or got != released):
            yield "the user received another result than the environment released"
        if self.fact["result"] is None or not ended:
            yield f"the study has no result; it is {self.fact['status']}"
            return
        if ended[-1]["details"].get("result") != digest(self.fact["result"]):
            yield "the result is not the one whose digest the log holds"
        told = self.fact["result"].get("provenance", {})
        if (told.get("study"), told.get("permit")) != (self.study.id, self.study.permit):
            yield "the result names another study or permit"


_ROUND, _ANSWER = ("study.round",), ("round.answered",)


def _check(check: str, of: str, found: Found, well: str) -> Check:
    """Make one check; what cannot be read or verified does not hold."""
    try:
        problems = list(found)
    except IhdsError as error:
        problems = [error.message]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problems = [f"it cannot be read: {error!r}"]
    return Check(check, of, not problems, "; ".join(problems) if problems else well)


def _at(entry: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(str(entry["at"]))


def _attempt(entry: dict[str, Any]) -> int:
    """Return which of a study's rounds an entry is of; a study that begins again counts on."""
    return int(entry["details"].get("attempt", entry["details"]["round"]))
