"""Citizens over real nodes: a choice at the counter, a study without the person, a code that takes it back."""

from __future__ import annotations

import io
import json

import httpx
import pytest

from ihds.cli import main
from ihds.cohorts import bladder_cancer
from ihds.demo import CURVES, pooled
from ihds.errors import Refused
from ihds.roles.node import Node
from tests.space import running


def test_a_person_opts_out_is_left_out_and_takes_it_back(tmp_path, capsys, monkeypatch):
    person = str(bladder_cancer.site_part(0, 3)["person_id"].iloc[0])

    def ihds(*words: str) -> dict:
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    with running(tmp_path) as nodes:
        registry, researcher = str(tmp_path / "access-body"), nodes.space("researcher")
        base = nodes.configs["access-body"].base_url
        whole = pooled("kaplan_meier", CURVES).n

        monkeypatch.setattr("sys.stdin", io.StringIO(person + "\n"))
        said = ihds("citizen", "opt-out", "--country", "LU", "--language", "de", "--node", registry)
        assert said["code"] in said["receipt"]
        assert researcher.run("kaplan_meier", permit=nodes.permit(), formula=CURVES).n == whole - 1
        for name, version in (("lih", 1), ("ncck", 1)):
            entries = nodes.entries(name)
            fixed = next(e["details"] for e in entries if e["kind"] == "opt_outs.applied")
            rounds = [e["details"]["opt_outs"] for e in entries if e["kind"] == "round.answered"]
            assert fixed["version"] == version
            assert all(r == {k: fixed[k] for k in r} for r in rounds)
            assert said["code"] not in json.dumps(entries)

        with httpx.Client(base_url=base) as browser:
            assert browser.post("/opt-outs/receipts", json={"code": said["code"]}).json()["choice"] == "OPTED_OUT"
            assert browser.post("/opt-outs/receipts", data={"code": "0" * 20}).status_code == 404
            page = browser.post("/opt-outs/reversals?lang=fr", data={"code": said["code"].lower()})
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "plus de refus" in page.text
            for path in ("list?dataset=bladder-lih&after=0", "keys"):
                method = "GET" if path.startswith("list") else "POST"
                assert browser.request(method, f"/opt-outs/{path}", json={}).status_code == 401
        asking = Node(tmp_path / "researcher")
        token = asking.wallet.token(nodes.configs["access-body"].did)
        with pytest.raises(Refused, match="only holders"):
            asking.http.call("POST", f"{base}/opt-outs/keys", {"dataset": "bladder-lih"}, token)
        asking.http.close()
        asking.store.close()
        with pytest.raises(Refused, match="min_difference") as refused:  # one person more could be subtracted
            researcher.run("kaplan_meier", permit=nodes.permit(), formula=CURVES)
        assert person not in str(refused.value)
        status = ihds("citizen", "status", "--code", said["code"], "--node", registry)
        assert [e["choice"] for e in status["history"]] == ["OPTED_OUT", "REVERSED"]
