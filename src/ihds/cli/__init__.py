"""The words a person types: each command is one call on a node, a federation or a log."""

from __future__ import annotations

import argparse
import logging
import sys

import ihds
from ihds.cli import (
    approvals,
    attacks,
    audit,
    citizens,
    cohorts,
    committee,
    gaiax,
    gdpr,
    genotypes,
    nodes,
    participants,
    people,
    permits,
    policies,
    publications,
    studies,
)
from ihds.cli.words import ERR, group, show_json
from ihds.errors import IhdsError

EXIT_STATUS = """exit status:
  0 done   10 bad input   11 no answer from these data   12 refused   13 not authenticated
  14 not found   15 wrong state   16 a site or node does not answer   17 a log is broken
  18 not set up   1 a bug"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; return the exit status."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if given.verbose else logging.WARNING)
    try:
        return int(given.run(given) or 0)
    except IhdsError as error:
        if given.json:
            show_json({"error": error.to_dict()})
        else:
            ERR.print(f"[bold red]{error.code}[/]", end=" ")
            ERR.print(str(error), markup=False, highlight=False)
        return error.exit_status
    except KeyboardInterrupt:
        ERR.print("interrupted; a study goes on in its node: ihds study show")
        return 130
    finally:
        if getattr(given, "space", None) is not None:
            given.space.close()


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line; the reference page is generated from it."""
    parser = argparse.ArgumentParser(
        prog="ihds",
        description="Join health data for research without pooling it.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ihds {ihds.__version__}")
    sub = parser.add_subparsers(required=True, metavar="COMMAND")
    people.sign_in_commands(sub)
    people.provider_commands(group(sub, "provider", "the small sign-in provider that comes with this software"))
    nodes.node_commands(group(sub, "node", "make and run a node"))
    genotypes.genotype_command(sub)
    nodes.key_commands(group(sub, "key", "list, rotate and retire a node's keys"))
    participants.member_commands(group(sub, "member", "join the data space; admit, suspend and expel"))
    committee.committee_commands(group(sub, "committee", "the bodies of the data space: seats, motions, votes"))
    nodes.worker_commands(group(sub, "worker", "keep rows in an inner zone that opens no port"))
    participants.negotiation_commands(group(sub, "negotiation", "see and steer contract negotiations"))
    participants.transfer_commands(group(sub, "transfer", "see and steer transfers; fetch their bytes"))
    participants.dataplane_commands(group(sub, "dataplane", "run a data plane in a process of its own"))
    policies.policy_commands(group(sub, "policy", "check and explain policies"))
    gaiax.gaiax_commands(group(sub, "gaiax", "publish and check Gaia-X credentials"))
    citizens.citizen_commands(group(sub, "citizen", "people's choices on the use of their health data"))
    studies.catalogue_commands(group(sub, "catalogue", "find datasets"))
    studies.apply_command(sub)
    permits.permit_commands(group(sub, "permit", "work cases: assess, decide, grant and revoke"))
    publications.publication_commands(group(sub, "publication", "publish results, report findings, delete"))
    people.officer_commands(group(sub, "officer", "accounts of an institution and their duties"))
    permits.agreement_commands(group(sub, "agreement", "agreements of institutions beside the EHDS"))
    study = group(sub, "study", "run and show studies; look at, approve and decline those that came to a holder")
    studies.study_commands(study)
    approvals.approval_commands(study)
    cohorts.cohort_commands(group(sub, "cohort", "the cohorts: variables, simulated persons, studies"))
    audit.audit_commands(group(sub, "audit", "prove logs, watch those of others, verify studies offline"))
    gdpr.gdpr_commands(group(sub, "gdpr", "drafts for the data protection officer"))
    studies.simulate_command(sub)
    attacks.attack_command(sub)
    return parser


def entry() -> None:
    """Console script."""
    sys.exit(main())
