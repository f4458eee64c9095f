"""The words a person types: each command is one call on a node, a federation or a log."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import ihds
from ihds.errors import BadInput, IhdsError

if TYPE_CHECKING:
    import pandas as pd

    from ihds.data.codebook import Codebook
    from ihds.roles.config import DatasetConfig

_err = Console(stderr=True, soft_wrap=True)
_out = Console(soft_wrap=True)

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
            _print_json({"error": error.to_dict()})
        else:
            _err.print(f"[bold red]{error.code}[/]", end=" ")
            _err.print(str(error), markup=False, highlight=False)
        return error.exit_status
    except KeyboardInterrupt:
        _err.print("interrupted; a study goes on in its node: ihds study show")
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
    node = _group(sub, "node", "make and run a node")
    _node_commands(node)
    found = _group(sub, "catalogue", "find datasets")
    search = _command(
        found, "search", "search all catalogues", "ihds catalogue search bladder --node researcher", _search
    )
    search.add_argument("text", nargs="*", help="words that must all occur")
    show = _command(
        found,
        "show",
        "show a dataset with its codebook",
        "ihds catalogue show bladder-lih --node researcher",
        _show_dataset,
    )
    show.add_argument("dataset")
    _apply_command(sub)
    _permit_commands(_group(sub, "permit", "list, decide and revoke permits"))
    _study_commands(_group(sub, "study", "run and show studies"))
    audit = _group(sub, "audit", "prove logs")
    verify = _command(
        audit, "verify", "prove a node's log, offline", "ihds audit verify lih ncck us-site", _verify, node=False
    )
    verify.add_argument("folder", nargs="+", type=Path, help="node folders")
    _simulate_command(sub)
    return parser


def _group(sub: Any, name: str, text: str) -> Any:
    parser = sub.add_parser(name, help=text, description=text)
    return parser.add_subparsers(required=True, metavar="COMMAND")


def _command(
    sub: Any, name: str, text: str, example: str, run: Callable[[Any], int | None], *, node: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = sub.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="say more on standard error")
    if node:
        parser.add_argument("--node", type=Path, default=Path(), help="the node's folder (default: here)")
    return parser


# -- node ------------------------------------------------------------------------------------------


def _node_commands(sub: Any) -> None:
    init = _command(
        sub,
        "init",
        "make a node: folder, keys, configuration and, for a holder, its data",
        "ihds node init lih --role holder --country LU --data bladder.csv --codebook bladder.toml",
        _node_init,
        node=False,
    )
    init.add_argument("folder", type=Path)
    init.add_argument("--role", required=True, choices=("holder", "access_body", "authority", "user"))
    init.add_argument("--country", required=True, help="ISO 3166-1 code, for example LU")
    init.add_argument("--name", help="name shown to others (default: the folder's)")
    init.add_argument("--url", help="address others reach it at (default: a free loopback port)")
    init.add_argument("--port", type=int, help="port to listen on (default: that of the address)")
    init.add_argument("--store", default="", help="postgresql://… (default: SQLite in the folder)")
    init.add_argument("--authority", default="", help="DID of the data space authority")
    init.add_argument("--access-body", action="append", default=[], help="DID trusted to issue permits")
    init.add_argument("--catalogue", action="append", default=[], help="DID of a holder to harvest")
    init.add_argument("--member", action="append", default=[], help="DID the authority admits")
    init.add_argument("--legal-regime", default="contract", choices=("contract", "ehds"))
    init.add_argument("--data", type=Path, help="CSV or Parquet table of a holder")
    init.add_argument("--codebook", type=Path, help="its codebook in TOML (default: a draft is inferred)")
    init.add_argument("--person", default="", help="column that tells persons apart, for a draft codebook")
    init.add_argument("--dataset", help="dataset id (default: the file's name)")
    init.add_argument("--title", help="dataset title")
    init.add_argument("--description", default="", help="dataset description")
    init.add_argument("--keyword", action="append", default=[], help="search word; may be repeated")
    run = _command(sub, "run", "run a node until interrupted", "ihds node run lih", _node_run, node=False)
    run.add_argument("folder", type=Path)


def _node_init(given: Any) -> None:
    from urllib.parse import urlsplit

    from ihds.roles import node
    from ihds.roles.config import NodeConfig, free_port

    name = given.name or given.folder.name
    url = given.url or f"http://127.0.0.1:{given.port or free_port()}"
    port = given.port or urlsplit(url).port or 443
    holding = _read_holding(given, name) if given.role == "holder" else None
    config = NodeConfig(
        name=name,
        role=given.role,
        country=given.country,
        base_url=url.rstrip("/"),
        port=port,
        store=given.store,
        authority=given.authority,
        access_bodies=tuple(given.access_body),
        catalogues=tuple(given.catalogue),
        members=tuple(given.member),
        legal_regime=given.legal_regime,
        datasets=(holding[0],) if holding else (),
    )
    node.create(given.folder, config)
    loaded = 0
    if holding:
        dataset, table, book = holding
        loaded = node.load_dataset(given.folder, dataset.id, table, book)
        book.write(given.folder / "codebook.toml")
    answer = {"node": name, "did": config.did, "url": config.base_url, "folder": str(given.folder), "rows": loaded}
    _print(given, answer, f"{name} is ready: {config.did}\nrun it with: ihds node run {given.folder}")


def _read_holding(given: Any, name: str) -> tuple[DatasetConfig, pd.DataFrame, Codebook]:
    """Read and check a holder's table before anything is made."""
    from ihds.data.codebook import Codebook
    from ihds.data.table import conform, draft_codebook, read_table
    from ihds.roles.config import DatasetConfig

    if given.data is None:
        raise BadInput("a holder needs data", remedy="give --data TABLE.csv")
    table = read_table(given.data, name)
    book = Codebook.read(given.codebook) if given.codebook else draft_codebook(name, table, given.person)
    dataset = given.dataset or given.data.stem
    settings = DatasetConfig(dataset, given.title or dataset, given.description, tuple(given.keyword))
    return settings, conform(table, book, name), book


def _node_run(given: Any) -> None:
    import uvicorn

    from ihds.roles.node import Node, keep_freed_memory

    keep_freed_memory()
    node = Node(given.folder)
    _err.print(f"{node.config.name} ({node.config.role}, {node.config.country}) at {node.config.base_url}")
    uvicorn.run(
        node.app(),
        host=node.config.host,
        port=node.config.port,
        log_level="info" if given.verbose else "warning",
        access_log=given.verbose,
        timeout_graceful_shutdown=3,
    )


# -- finding and applying ----------------------------------------------------------------------------


def _space(given: Any) -> Any:
    given.space = ihds.connect(given.node)
    return given.space


def _search(given: Any) -> None:
    rows = _space(given).search(" ".join(given.text))
    _print_rows(given, rows, ("dataset", "title", "name", "country", "persons", "variables"))


def _show_dataset(given: Any) -> None:
    shown = _space(given).call("catalogue.show", dataset=given.dataset)
    if given.json:
        _print_json(shown)
        return
    _out.print(f"[bold]{shown['title']}[/] ({shown['dataset']}) at {shown['name']}, {shown['country']}")
    _out.print(shown["description"])
    _rows_table(shown["codebook"]["variables"], ("name", "kind", "label", "unit", "levels"))


def _apply_command(sub: Any) -> None:
    command = _command(
        sub,
        "apply",
        "send a data access application to the access body",
        "ihds apply --node researcher --dataset bladder-lih --purpose scientific_research\n"
        '    --title "Recurrence" --intended-use "…" --benefit "…" --variable treatment\n'
        "    --method cox --person 'A. Researcher' --legal-basis 'GDPR 6(1)(e)' --ethics 'CNER 2026/1'",
        _apply,
    )
    command.add_argument("--title", required=True)
    command.add_argument("--purpose", required=True, help="EHDS Art. 53(1), for example scientific_research")
    command.add_argument("--intended-use", required=True)
    command.add_argument("--benefit", required=True)
    command.add_argument("--dataset", action="append", required=True, help="may be repeated")
    command.add_argument("--variable", action="append", required=True, help="may be repeated")
    command.add_argument("--method", action="append", required=True, help="may be repeated")
    command.add_argument("--person", action="append", required=True, help="who will work; may be repeated")
    command.add_argument("--legal-basis", default="")
    command.add_argument("--ethics", default="")
    command.add_argument("--safeguards", default="federated analysis, only sums leave the holders")
    command.add_argument("--period-months", type=int, default=24)
    command.add_argument("--access-body", default="", help="DID (default: the configured one)")


def _apply(given: Any) -> None:
    answer = _space(given).apply(
        title=given.title,
        purpose=given.purpose,
        intended_use=given.intended_use,
        benefit=given.benefit,
        datasets=given.dataset,
        variables=given.variable,
        methods=given.method,
        persons=given.person,
        legal_basis=given.legal_basis,
        ethics=given.ethics,
        safeguards=given.safeguards,
        period_months=given.period_months,
        access_body=given.access_body,
    )
    lines = [f"application {answer['application']} is {answer['state']}", *answer["reasons"]]
    _print(given, answer, "\n".join(lines))


# -- permits -----------------------------------------------------------------------------------------


def _permit_commands(sub: Any) -> None:
    _command(sub, "list", "list applications and permits", "ihds permit list --node researcher", _permit_list)
    show = _command(
        sub, "show", "show a permit or an application", "ihds permit show urn:uuid:… --node hdab", _permit_show
    )
    show.add_argument("id")
    decide = _command(
        sub,
        "decide",
        "decide an application (on the access body's node)",
        "ihds permit decide urn:uuid:… --grant --condition max_rounds=100 --node hdab",
        _permit_decide,
    )
    decide.add_argument("id", help="application id")
    choice = decide.add_mutually_exclusive_group(required=True)
    choice.add_argument("--grant", action="store_true")
    choice.add_argument("--refuse", action="store_true")
    decide.add_argument("--reason", action="append", default=[], help="of a refusal; may be repeated")
    decide.add_argument("--condition", action="append", default=[], help="NAME=NUMBER, for example min_cell=10")
    revoke = _command(
        sub,
        "revoke",
        "revoke a permit (on the access body's node)",
        "ihds permit revoke urn:uuid:… --reason misuse --node hdab",
        _permit_revoke,
    )
    revoke.add_argument("id")
    revoke.add_argument("--reason", default="")


def _permit_list(given: Any) -> None:
    rows = _space(given).call("permit.list")
    _print_rows(given, rows, ("application", "title", "purpose", "state", "permit", "permit_state"))


def _permit_show(given: Any) -> None:
    _print_json(_space(given).call("permit.show", id=given.id))


def _permit_decide(given: Any) -> None:
    answer = _space(given).call(
        "permit.decide",
        id=given.id,
        grant=given.grant,
        reasons=given.reason,
        conditions=_numbers(given.condition),
    )
    answer.pop("credential", None)
    said = f"permit {answer['permit']} is granted" if given.grant else "the application is refused"
    _print(given, answer, said)


def _permit_revoke(given: Any) -> None:
    answer = _space(given).call("permit.revoke", id=given.id, reason=given.reason)
    _print(given, answer, f"permit {answer['permit']} is {answer['state']}")


def _numbers(pairs: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value) if "." in value else int(value)
        except ValueError as error:
            raise BadInput(f"{pair!r} is not NAME=NUMBER", remedy="write for example min_cell=10") from error
    return found


# -- studies -----------------------------------------------------------------------------------------


def _study_commands(sub: Any) -> None:
    run = _command(
        sub,
        "run",
        "run a study under a permit",
        'ihds study run cox --formula "Surv(time, status) ~ age" --permit urn:uuid:… --node researcher',
        _study_run,
    )
    run.add_argument("method", nargs="?", help="describe, kaplan_meier, logrank, cox, glm")
    run.add_argument("--resume", help="id of a study that waits")
    run.add_argument("--permit", help="permit id (default: the only one in force)")
    run.add_argument("--dataset", action="append", default=[], help="without a permit: where to ask")
    run.add_argument("--purpose", help="default: the permit's")
    run.add_argument("--stop-after", type=int, help="pause after so many rounds")
    _param_options(run)
    show = _command(
        sub, "show", "show a study, or list all", "ihds study show urn:uuid:… --node researcher", _study_show
    )
    show.add_argument("id", nargs="?")


def _param_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--formula", help='R formula, for example "Surv(time, status) ~ age + C(stage)"')
    parser.add_argument("--ties", choices=("efron", "breslow"), help="cox: treatment of ties")
    parser.add_argument("--time-bin", type=float, help="width of the pooled time grid")
    parser.add_argument("--strata", help="site, or a category")
    parser.add_argument("--family", choices=("gaussian", "binomial", "poisson"), help="glm: outcome")
    parser.add_argument("--variables", help="describe: names, with commas")
    parser.add_argument("--param", action="append", default=[], help="NAME=VALUE, any other parameter")


def _params(given: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("formula", "ties", "time_bin", "strata", "family", "variables")
        if getattr(given, name) is not None
    }
    for pair in given.param:
        name, _, value = pair.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


class _Steps:
    """Shows steps as a bar on a terminal, as lines in a pipe, and nothing with --json."""

    def __init__(self, given: Any) -> None:
        self.silent = given.json
        self.bar: Progress | None = None
        if not self.silent and _err.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed} rounds"),
                TimeElapsedColumn(),
                console=_err,
                transient=True,
            )
            self.task = self.bar.add_task("asking holders", total=None)

    def __enter__(self) -> _Steps:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, step: dict[str, Any]) -> None:
        if self.silent:
            return
        if self.bar is None:
            words = {k: v for k, v in step.items() if k not in ("step", "error")}
            _err.print(f"{step['step']}: " + ", ".join(f"{k} {v}" for k, v in words.items()), highlight=False)
        elif step["step"] == "round":
            self.bar.update(self.task, advance=1, description=step["contribution"])


def _study_run(given: Any) -> None:
    space = _space(given)
    with _Steps(given) as report:
        if given.resume:
            result = space.resume(given.resume, report)
        else:
            if not given.method:
                raise BadInput("no method is named", remedy="write for example: ihds study run cox --formula …")
            more = {"purpose": given.purpose, "max_rounds": given.stop_after}
            if given.permit or not given.dataset:
                more["permit"] = given.permit or space.only_permit()
            else:
                more["datasets"] = given.dataset
            study = space.start(given.method, _params(given), **more)
            if not given.json:
                _err.print(f"study {study}", highlight=False)
            result = space.follow(study, report)
    _print(given, result.to_dict(), result.summary())


def _study_show(given: Any) -> None:
    from ihds.analysis.result import Result

    space = _space(given)
    if not given.id:
        _print_rows(given, space.call("study.list"), ("study", "method", "formula", "status"))
        return
    shown = space.study(given.id)
    lines = [f"study {shown['study']}: {shown['method']} {shown['formula']} is {shown['status']}"]
    if shown["error"]:
        lines += [shown["error"]["message"], *shown["error"]["reasons"]]
    if shown["result"]:
        lines += ["", Result.from_dict(shown["result"]).summary()]
    _print(given, shown, "\n".join(lines))


# -- audit and simulation ----------------------------------------------------------------------------


def _verify(given: Any) -> None:
    from ihds.roles.node import verify_folder

    rows = [verify_folder(folder) for folder in given.folder]
    _print_rows(given, rows, ("node", "did", "entries", "proved"))


def _simulate_command(sub: Any) -> None:
    command = _command(
        sub,
        "simulate",
        "run a method over local tables, with the same gate and masks",
        "ihds simulate cox --site lu=lu.csv --site kr=kr.csv --site us=us.csv\n"
        '    --formula "Surv(time, status) ~ age + C(stage)" --json',
        _simulate,
        node=False,
    )
    command.add_argument("method")
    command.add_argument("--site", action="append", default=[], help="NAME=TABLE; may be repeated")
    command.add_argument("--codebook", type=Path, help="codebook in TOML (default: agreed from the tables)")
    command.add_argument("--permit", action="append", default=[], help="NAME=NUMBER threshold, e.g. min_time_bin=0")
    command.add_argument("--plot", type=Path, help="write a picture")
    _param_options(command)


def _simulate(given: Any) -> None:
    sites = {}
    for pair in given.site:
        name, _, path = pair.partition("=")
        if not path or name in sites:
            raise BadInput(f"{pair!r} is not NAME=TABLE, or stands twice", remedy="write --site lu=lu.csv")
        sites[name] = path
    federation = ihds.local_federation(sites, given.codebook, _numbers(given.permit))
    with _Steps(given) as report:
        result = federation.run(given.method, progress=lambda w, d: report({"step": w, **d}), **_params(given))
    if given.plot:
        result.plot().savefig(given.plot)
    _print(given, result.to_dict(), result.summary())


# -- printing ----------------------------------------------------------------------------------------


def _print(given: Any, body: Any, text: str) -> None:
    if given.json:
        _print_json(body)
    else:
        _out.print(text, markup=False, highlight=False)


def _print_json(body: Any) -> None:
    sys.stdout.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def _print_rows(given: Any, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if given.json:
        _print_json(rows)
    elif rows:
        _rows_table(rows, columns)
    else:
        _out.print("nothing found")


def _rows_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        cells = [row.get(c) for c in columns]
        table.add_row(*(", ".join(c) if isinstance(c, list) else "" if c is None else str(c) for c in cells))
    _out.print(table)


def entry() -> None:
    """Console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
