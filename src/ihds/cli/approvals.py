"""Commands with which a holder looks at studies before they run: preview, approve, decline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ihds.cli.studies import param_options, params
from ihds.cli.words import command, open_space, show, show_rows
from ihds.errors import BadInput


def approval_commands(sub: Any) -> None:
    """Declare what a holder says of studies, under ``ihds study``."""
    command(sub, "asked", "list the studies that came to a holder", "ihds study asked --node lih", _asked)
    seen = command(
        sub,
        "preview",
        "say in words what a study would take from this holder, by a dry run on its own rows",
        'ihds study preview cox --formula "Surv(time, status) ~ age" --node lih\n'
        "  ihds study preview urn:uuid:… --html preview.html --node lih",
        _preview,
    )
    seen.add_argument("study", help="the id of a study that came here, or a method to think of")
    seen.add_argument("--dataset", help="of this holder (default: its only one)")
    seen.add_argument("--html", type=Path, help="write a page as well")
    param_options(seen)
    approve = command(
        sub, "approve", "let a study go on that waits", "ihds study approve urn:uuid:… --node lih", _approve
    )
    approve.add_argument("study")
    command(sub, "budget", "show what noisy studies may still tell of the persons here", "ihds study budget", _budget)
    decline = command(sub, "decline", "end a study here", "ihds study decline urn:uuid:… --node lih", _decline)
    decline.add_argument("study")


def _asked(given: Any) -> None:
    show_rows(given, open_space(given).call("studies"), ("study", "method", "user", "round", "state"))


def _budget(given: Any) -> None:
    columns = ("budget", "epsilon", "delta", "spent_epsilon", "left", "spent_rho", "left_rho")
    show_rows(given, open_space(given).call("study.budget"), columns)


def _preview(given: Any) -> None:
    came = given.study.startswith("urn:")
    which = {"study": given.study} if came else {"method": given.study, "params": params(given)}
    found = open_space(given).call("study.preview", dataset=given.dataset, **which)
    if given.html:
        from ihds.reports.preview import write_preview

        if not given.html.parent.is_dir():
            raise BadInput(f"there is no folder {given.html.parent}", remedy="make it first")
        write_preview(given.html, found)
    show(given, found, in_words(found))


def in_words(found: dict[str, Any]) -> str:
    """Return a preview as text."""
    asked = ", ".join(f"{k} = {v}" for k, v in found["params"].items())
    lines = [f"{found['method']}: {found['question']}", f"asked: {asked}"]
    if "user" in found:
        lines.append(f"by {found['user']} under {found['permit']}, for {found['purpose']}")
        lines.append(f"opened only as the sum over {len(found['holders'])} holders: {', '.join(found['holders'])}")
    lines.append(f"variables read: {', '.join(found['variables'])}; persons here: {found['persons']}")
    lines.append("thresholds: " + ", ".join(f"{k} {v:g}" for k, v in found["thresholds"].items()))
    lines += [f"this node would refuse: {reason}" for reason in found["refused"]]
    lines += ["", "would leave this node, masked (a dry run on its own rows; nothing was sent):"]
    for part in found["leaving"]:
        often = "once" if part["rounds"] == 1 else f"{part['rounds']} times"
        lines.append(
            f"  {part['contribution']} ({part['output_class']}), {often}, {part['numbers']} numbers: {part['meaning']}"
        )
        lines += [f"      {name} {shape}: {unit}" for name, shape, unit in part["fields"]]
    if found["privacy"]:
        told = found["privacy"]
        lines.append(
            f"with noise: epsilon {told['epsilon']}, delta {told['delta']}, which costs rho {told['rho']}; "
            f"it says something from about {told['needs_persons']} persons of all holders on"
        )
    lines += ["", "rules against disclosure that hold (docs/reference/disclosure.md):"]
    for kind in dict.fromkeys(part["output_class"] for part in found["leaving"]):
        lines.append(f"  {kind}")
        rules = next(part["rules"] for part in found["leaving"] if part["output_class"] == kind)
        lines += [f"      {name}: {text}{f' ({values})' if values else ''}" for name, text, values in rules]
    if found["ended"]:
        lines.append(f"the dry run ended early: {found['ended']}")
    if found["alone"]:
        lines.append(f"these rows alone would not do, judged over all holders they may: {found['alone']}")
    return "\n".join(lines)


def _approve(given: Any) -> None:
    answer = open_space(given).call("study.approve", study=given.study)
    show(given, answer, f"study {answer['study']} may go on; its user resumes it")


def _decline(given: Any) -> None:
    answer = open_space(given).call("study.decline", study=given.study)
    show(given, answer, f"study {answer['study']} is closed here")
