"""The scenarios of the Dataspace Protocol compatibility kit, as data: who does what, in which order.

One table serves three readers: the node under test (what it does by itself), the native tests (the
sequence), and the real kit's configuration (identifiers).

A sequence is written in the kit's order: ``>Offer`` the node under test sends, ``<Termination`` the
counterpart sends and the node accepts, ``!Verification`` the counterpart sends and the node must
refuse with a 4xx other than 404, ``=TERMINATED`` the state a GET then shows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    """One test of the kit. ``reactions`` maps an event to the node's own next event."""

    name: str
    key: str
    reactions: dict[str, str]
    steps: str

    @property
    def kind(self) -> str:
        """CN, CN_C, TP or TP_C: provider or consumer of a negotiation or transfer."""
        return self.name.split(":")[0]

    @property
    def prefix(self) -> str:
        """The kit's configuration prefix, such as CN_01_02."""
        return self.name.replace(":", "_").replace("-", "_")


def _table(kind: str, stem: str, rows: str) -> list[Scenario]:
    found = []
    for line in rows.strip().splitlines():
        number, reactions, steps = (part.strip() for part in line.split("|"))
        pairs = dict(pair.split(">") for pair in reactions.split()) if reactions else {}
        found.append(Scenario(f"{kind}:{number}", stem + number.replace("-", ""), pairs, steps))
    return found


_PROVIDER_CN = """
01-01 | request>offer | >Offer <Termination =TERMINATED
01-02 | request>offer counter>terminate | >Offer <Request >Termination =TERMINATED
01-03 | request>offer accept>agree verify>finalize | >Offer <Accepted >Agreement <Verification >Finalized =FINALIZED
01-04 | request>agree verify>finalize | >Agreement <Verification >Finalized =FINALIZED
02-01 | request>terminate | >Termination =TERMINATED
02-02 | | <Termination =TERMINATED
02-03 | request>agree | >Agreement <Termination =TERMINATED
02-04 | request>offer | >Offer <Termination =TERMINATED
02-05 | request>offer offer>terminate | >Offer >Termination =TERMINATED
02-06 | request>offer accept>terminate | >Offer <Accepted >Termination =TERMINATED
02-07 | request>agree verify>terminate | >Agreement <Verification >Termination =TERMINATED
03-01 | request>agree verify>finalize | >Agreement <Verification >Finalized =FINALIZED !Termination =FINALIZED
03-02 | request>offer | >Offer !Verification =OFFERED
03-03 | request>offer | >Offer <Accepted !Verification =ACCEPTED
03-04 | request>offer | >Offer <Request !Request =REQUESTED
"""
_CONSUMER_CN = """
01-01 | offer>accept agree>verify | >Request <Offer >Accepted <Agreement >Verification <Finalized =FINALIZED
01-02 | offer>request | >Request <Offer >Request <Termination =TERMINATED
01-03 | offer>terminate | >Request <Offer >Termination =TERMINATED
01-04 | agree>verify | >Request <Agreement >Verification <Finalized =FINALIZED
02-01 | | >Request <Termination =TERMINATED
02-02 | request>terminate | >Request >Termination =TERMINATED
02-03 | agree>terminate | >Request <Agreement >Termination =TERMINATED
02-04 | | >Request <Offer =OFFERED <Termination =TERMINATED
02-05 | offer>accept | >Request <Offer >Accepted <Termination =TERMINATED
02-06 | agree>verify | >Request <Agreement >Verification <Termination =TERMINATED
03-01 | | >Request !Finalized =REQUESTED
03-02 | | >Request <Offer !Agreement =OFFERED
03-03 | | >Request <Offer !Finalized =OFFERED
03-04 | offer>accept | >Request <Offer >Accepted !Finalized =ACCEPTED
03-05 | offer>accept | >Request <Offer >Accepted !Offer =ACCEPTED
03-06 | offer>accept | >Request <Offer >Accepted <Agreement !Finalized =AGREED
"""
_PROVIDER_TP = """
01-01 | request>start start>terminate | >Start =STARTED >Termination =TERMINATED
01-02 | request>start start>complete | >Start =STARTED >Completion =COMPLETED
01-03 | request>start start>suspend suspend>terminate | >Start =STARTED >Suspension =SUSPENDED >Termination =TERMINATED
01-04 | request>start start>suspend suspend>start restart>complete | >Start >Suspension >Start >Completion =COMPLETED
01-05 | request>terminate | >Termination =TERMINATED
02-01 | request>start | >Start <Termination =TERMINATED
02-02 | request>start | >Start <Completion =COMPLETED
02-03 | request>start | >Start <Suspension =SUSPENDED <Termination =TERMINATED
02-04 | request>start | >Start <Suspension =SUSPENDED <Start =STARTED <Completion =COMPLETED
02-05 | | <Termination =TERMINATED
03-01 | | !Completion =REQUESTED
03-02 | | !Suspension =REQUESTED
03-03 | request>start | >Start <Suspension !Completion =SUSPENDED
03-04 | request>start | >Start <Termination !Start =TERMINATED
03-05 | request>start | >Start <Termination !Suspension =TERMINATED
03-06 | request>start | >Start <Termination !Completion =TERMINATED
"""
_CONSUMER_TP = """
01-01 | | >Request <Start =STARTED <Termination =TERMINATED
01-02 | | >Request <Start =STARTED <Completion =COMPLETED
01-03 | | >Request <Start <Suspension =SUSPENDED <Termination =TERMINATED
01-04 | | >Request <Start <Suspension <Start <Completion =COMPLETED
01-05 | | >Request <Termination =TERMINATED
02-01 | start>terminate | >Request <Start >Termination =TERMINATED
02-02 | start>complete | >Request <Start >Completion =COMPLETED
02-03 | start>suspend suspend>terminate | >Request <Start >Suspension =SUSPENDED >Termination =TERMINATED
02-04 | start>suspend suspend>start restart>complete | >Request <Start >Suspension >Start >Completion =COMPLETED
02-05 | request>terminate | >Request >Termination =TERMINATED
03-01 | | >Request !Completion =REQUESTED
03-02 | | >Request !Suspension =REQUESTED
03-03 | | >Request <Start <Suspension !Completion =SUSPENDED
03-04 | | >Request <Start <Termination !Start =TERMINATED
03-05 | | >Request <Start <Termination !Suspension =TERMINATED
03-06 | | >Request <Start <Termination !Completion =TERMINATED
"""

SCENARIOS = [
    *_table("CN", "ACN", _PROVIDER_CN),
    *_table("CN_C", "ACNC", _CONSUMER_CN),
    *_table("TP", "ATP", _PROVIDER_TP),
    *_table("TP_C", "ATPC", _CONSUMER_TP),
]
BY_KEY = {scenario.key: scenario for scenario in SCENARIOS}
#: Datasets the catalog tests ask for; CAT0103 must not exist.
CATALOG = ("CAT0101", "CAT0102")
COUNTERPART = "TCK_PARTICIPANT"
BEARER = "tck"
FORMAT = "HttpData-PULL"
#: How many tests the real kit runs; two of its transfer tests are disabled there.
KIT_TESTS = 65


def offer_id(dataset: str) -> str:
    """Return the offer id the kit hard-codes for a dataset."""
    return f"CD123:{dataset}:456"


def properties(me: str, node: str, kit: str) -> dict[str, str]:
    """Return the real kit's configuration: own participant id, the node's and the kit's addresses."""
    host, port = kit.removeprefix("http://").split(":")
    base = "dataspacetck.dsp.connector"
    found = {
        "dataspacetck.host": host,
        "dataspacetck.port": port,
        "dataspacetck.callback.address": kit,
        "dataspacetck.dsp.default.wait": "15",
        f"{base}.agent.id": me,
        f"{base}.http.url": f"{node}/dsp/2025-1",
        f"{base}.http.base.url": node,
        f"{base}.http.headers.authorization": f"Bearer {BEARER}",
        f"{base}.negotiation.initiate.url": f"{node}/tck/negotiations/requests",
        f"{base}.transfer.initiate.url": f"{node}/tck/transfers/requests",
        "CAT_01_01_DATASETID": "CAT0101",
        "CAT_01_02_DATASETID": "CAT0102",
        "CAT_01_03_DATASETID": "CAT0103",
    }
    for scenario in SCENARIOS:
        if scenario.kind.startswith("CN"):
            found[f"{scenario.prefix}_DATASETID"] = scenario.key
            found[f"{scenario.prefix}_OFFERID"] = offer_id(scenario.key)
        else:
            found[f"{scenario.prefix}_AGREEMENTID"] = scenario.key
            found[f"{scenario.prefix}_FORMAT"] = FORMAT
    return found
