"""A researcher's commands: find, apply, run studies, simulate."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import ihds
from ihds.cli.words import ERR, OUT, command, numbers, open_space, rows_table, show, show_json, show_rows
from ihds.errors import BadInput


def catalogue_commands(sub: Any) -> None:
    """Declare ``ihds catalogue``."""
    search = command(sub, "search", "search all catalogues", "ihds catalogue search bladder --node researcher", _search)
    search.add_argument("text", nargs="*", help="words that must all occur")
    shown = command(
        sub,
        "show",
        "show a dataset with its codebook",
        "ihds catalogue show bladder-lih --node researcher",
        _show_dataset,
    )
    shown.add_argument("dataset")


def _search(given: Any) -> None:
    rows = open_space(given).search(" ".join(given.text))
    show_rows(given, rows, ("dataset", "title", "name", "country", "persons", "variables"))


def _show_dataset(given: Any) -> None:
    shown = open_space(given).call("catalogue.show", dataset=given.dataset)
    if given.json:
        show_json(shown)
        return
    OUT.print(f"[bold]{shown['title']}[/] ({shown['dataset']}) at {shown['name']}, {shown['country']}")
    OUT.print(shown["description"])
    rows_table(shown["codebook"]["variables"], ("name", "kind", "label", "unit", "levels"))


def apply_command(sub: Any) -> None:
    """Declare ``ihds apply``."""
    declared = command(
        sub,
        "apply",
        "send a data access application to the access body",
        "ihds apply --node researcher --dataset bladder-lih --purpose scientific_research\n"
        '    --title "Recurrence" --intended-use "…" --benefit "…" --variable treatment\n'
        "    --method cox --person 'A. Researcher' --legal-basis 'GDPR 6(1)(e)' --ethics 'CNER 2026/1'",
        _apply,
    )
    declared.add_argument("--title", required=True)
    declared.add_argument("--purpose", required=True, help="EHDS Art. 53(1), for example scientific_research")
    declared.add_argument("--intended-use", required=True)
    declared.add_argument("--benefit", required=True)
    declared.add_argument("--dataset", action="append", required=True, help="may be repeated")
    declared.add_argument("--variable", action="append", required=True, help="may be repeated")
    declared.add_argument("--method", action="append", required=True, help="may be repeated")
    declared.add_argument("--person", action="append", required=True, help="who will work; may be repeated")
    declared.add_argument("--legal-basis", default="")
    declared.add_argument("--ethics", default="")
    declared.add_argument("--safeguards", default="federated analysis, only sums leave the holders")
    declared.add_argument("--period-months", type=int, default=24)
    declared.add_argument("--access-body", default="", help="DID (default: the configured one)")
    declared.add_argument("--agreement", default="", help="the agreement it rests on, beside the EHDS")
    declared.add_argument("--visas", type=Path, help="file with GA4GH visas: a JSON list, or a passport")


def _visas(file: Path) -> list[str]:
    from ihds.people.passports import tokens_of

    try:
        return list(tokens_of(json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} has no visas: {error}", remedy="ihds permit visa --json writes such a file") from error


def _apply(given: Any) -> None:
    answer = open_space(given).apply(
        **({"visas": _visas(given.visas)} if given.visas else {}),
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
        agreement=given.agreement,
    )
    lines = [f"application {answer['application']} is {answer['state']}", *answer["reasons"]]
    show(given, answer, "\n".join(lines))


def study_commands(sub: Any) -> None:
    """Declare ``ihds study``."""
    run = command(
        sub,
        "run",
        "run a study under a permit",
        'ihds study run cox --formula "Surv(time, status) ~ age" --permit urn:uuid:… --node researcher',
        _study_run,
    )
    run.add_argument(
        "method", nargs="?", help="a method of docs/methods, for example cox; an unknown name lists them all"
    )
    run.add_argument("--resume", help="id of a study that waits")
    run.add_argument("--permit", help="permit id (default: the only one in force)")
    run.add_argument("--dataset", action="append", default=[], help="without a permit: where to ask")
    run.add_argument("--purpose", help="default: the permit's")
    run.add_argument("--person", help="who runs it, as the permit names persons (default: the only one it names)")
    run.add_argument("--stop-after", type=int, help="pause after so many rounds")
    param_options(run)
    shown = command(
        sub, "show", "show a study, or list all", "ihds study show urn:uuid:… --node researcher", _study_show
    )
    shown.add_argument("id", nargs="?")
    ended = command(
        sub, "cancel", "end a study for good", "ihds study cancel urn:uuid:… --node researcher", _study_cancel
    )
    ended.add_argument("id")


def param_options(parser: argparse.ArgumentParser) -> None:
    """Declare the parameters of methods that people use most, and any other by NAME=VALUE."""
    parser.add_argument("--formula", help='R formula, for example "Surv(time, status) ~ age + C(stage)"')
    parser.add_argument("--ties", choices=("efron", "breslow"), help="cox: treatment of ties")
    parser.add_argument("--time-bin", type=float, help="width of the pooled time grid")
    parser.add_argument("--strata", help="site, or a category")
    parser.add_argument("--family", choices=("gaussian", "binomial", "poisson"), help="glm: outcome")
    parser.add_argument("--variables", help="describe: names, with commas")
    parser.add_argument("--complete-for", help="variables without which a row is left out, so that studies match")
    parser.add_argument("--param", action="append", default=[], help="NAME=VALUE, any other parameter")


def params(given: Any) -> dict[str, Any]:
    """Return a method's parameters as they were typed."""
    found: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("formula", "ties", "time_bin", "strata", "family", "variables", "complete_for")
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
        if not self.silent and ERR.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed} rounds"),
                TimeElapsedColumn(),
                console=ERR,
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
            ERR.print(f"{step['step']}: " + ", ".join(f"{k} {v}" for k, v in words.items()), highlight=False)
        elif step["step"] == "round":
            self.bar.update(self.task, advance=1, description=step["contribution"])


def _study_run(given: Any) -> None:
    space = open_space(given)
    with _Steps(given) as report:
        if given.resume:
            result = space.resume(given.resume, report)
        else:
            if not given.method:
                raise BadInput("no method is named", remedy="write for example: ihds study run cox --formula …")
            more = {"purpose": given.purpose, "person": given.person, "max_rounds": given.stop_after}
            if given.permit or not given.dataset:
                more["permit"] = given.permit or space.only_permit()
            else:
                more["datasets"] = given.dataset
            study = space.start(given.method, params(given), **more)
            if not given.json:
                ERR.print(f"study {study}", highlight=False)
            result = space.follow(study, report)
    show(given, result.to_dict(), result.summary())


def _study_cancel(given: Any) -> None:
    answer = open_space(given).call("study.cancel", study=given.id)
    show(given, answer, f"study {answer['study']} is {answer['status']}")


def _study_show(given: Any) -> None:
    from ihds.analysis.result import Result

    space = open_space(given)
    if not given.id:
        show_rows(given, space.call("study.list"), ("study", "method", "formula", "status"))
        return
    shown = space.study(given.id)
    lines = [f"study {shown['study']}: {shown['method']} {shown['formula']} is {shown['status']}"]
    if shown["error"]:
        lines += [shown["error"]["message"], *shown["error"]["reasons"]]
    if shown["result"]:
        lines += ["", Result.from_dict(shown["result"]).summary()]
    show(given, shown, "\n".join(lines))


def simulate_command(sub: Any) -> None:
    """Declare ``ihds simulate``."""
    declared = command(
        sub,
        "simulate",
        "run a method over local tables, with the same gate and masks",
        "ihds simulate cox --site lu=lu.csv --site kr=kr.csv --site us=us.csv\n"
        '    --formula "Surv(time, status) ~ age + C(stage)" --json',
        _simulate,
        node=False,
    )
    declared.add_argument("method")
    declared.add_argument("--site", action="append", default=[], help="NAME=TABLE; may be repeated")
    declared.add_argument("--codebook", type=Path, help="codebook in TOML (default: agreed from the tables)")
    declared.add_argument("--permit", action="append", default=[], help="NAME=NUMBER threshold, e.g. min_time_bin=0")
    declared.add_argument("--plot", type=Path, help="write a picture")
    declared.add_argument(
        "--engine", default="", help="where sites compute: dask, or dask:tcp://host:8786 (default: here)"
    )
    param_options(declared)


def _simulate(given: Any) -> None:
    sites = {}
    for pair in given.site:
        name, _, path = pair.partition("=")
        if not path or name in sites:
            raise BadInput(f"{pair!r} is not NAME=TABLE, or stands twice", remedy="write --site lu=lu.csv")
        sites[name] = path
    federation = ihds.local_federation(sites, given.codebook, numbers(given.permit), given.engine)
    with _Steps(given) as report:
        result = federation.run(given.method, progress=lambda w, d: report({"step": w, **d}), **params(given))
    if given.plot:
        result.plot().savefig(given.plot)
    show(given, result.to_dict(), result.summary())
