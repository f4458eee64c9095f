"""The issuer's endpoint when requests arrive at the same moment."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from ihds.connector.dcp.issuer import IssuerService, Offered
from ihds.connector.dcp.message import message
from ihds.errors import Conflict
from ihds.wire.serve import Call
from tests.connector.test_dcp import A, make, resolver


class Believing:
    """Takes the bearer for the sender."""

    def check(self, token: str) -> dict[str, str]:
        return {"iss": token}


class Counting:
    """Gives each holder the next number, as an authority gives status bits; busy the first few times."""

    def __init__(self, log, busy: int = 0) -> None:
        self.log, self.busy = log, busy

    def offered(self) -> list[Offered]:
        return [Offered("MembershipCredential", "vc11-sl2021/jwt")]

    def decide(self, holder, asked, request):
        from ihds.audit.log import Event
        from ihds.store.store import Put

        if self.busy:
            self.busy -= 1
            raise Conflict("the record exists already")
        counter = self.log.get("counter", "member")
        number = counter.body["next"] if counter else 0
        self.log.commit(
            Event("member.requested", holder, {"member": holder}),
            Put("counter", "member", counter.version if counter else 0, {"next": number + 1}),
            Put("member", holder, 0, {"index": number}),
        )


def ask(service, holder: str):
    offered = service.issuing.offered()[0].id
    body = message("CredentialRequestMessage", holderPid=f"urn:{holder}", credentials=[{"id": offered}])
    call = Call("POST", {}, {}, {"authorization": f"Bearer {holder}"}, json.dumps(body).encode(), "127.0.0.1")
    return service._request(call)


def make_service(tmp_path, busy: int = 0):
    from ihds.audit.log import Log
    from ihds.store.store import Store

    log = Log(Store(f"sqlite:///{tmp_path}/store.sqlite"), A.did, A.key)
    service = IssuerService(A, Believing(), resolver(), None, log, "http://a.example", Counting(log, busy))
    return log, service


def test_applicants_at_the_same_moment_all_get_a_number_of_their_own(tmp_path):
    log, service = make_service(tmp_path)
    names = [make(f"h{j}").did for j in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: ask(service, n), names))
    assert [a.status for a in answers] == [201] * 12
    assert sorted(log.get("member", n).body["index"] for n in names) == list(range(12))


def test_an_issuer_that_stays_busy_says_so_and_nothing_is_kept(tmp_path):
    log, service = make_service(tmp_path, busy=1000)
    with pytest.raises(Conflict):
        ask(service, make("late").did)
    assert log.store.list("issuance.request") == []
