"""Who did what in a project: kept under the project, in the transaction of what was done (EHDS Art. 55(3))."""

from __future__ import annotations

from collections.abc import Mapping

from ihds.audit.log import Log
from ihds.governance.duties import Actor, Role
from ihds.governance.lives import Kind
from ihds.store.store import Put

#: Roles in which nobody of the access body acts.
_OUTSIDE = (Role.APPLICANT, Role.CLOCK, Role.TRUSTED_HOLDER)


def project_of(log: Log, application: str) -> str:
    """Return the project of a case: the application that began it; amendments belong to it."""
    found = log.get("application", application)
    if found is not None and found.body["kind"] == Kind.AMENDMENT:
        permit = log.get("permit", str(found.body["amends"]))
        if permit is not None:
            return project_of(log, str(permit.body["application"]))
    return application


def taking(log: Log, project: str, actor: Actor, role: Role) -> tuple[Mapping[str, frozenset[Role]], tuple[Put, ...]]:
    """Return who did what in a project so far, and the write that adds this one; the write is refused if it changed."""
    found = log.get("project", project)
    kept: dict[str, list[str]] = dict(found.body["duties"]) if found else {}
    held = {name: frozenset(map(Role, roles)) for name, roles in kept.items()}
    if role in _OUTSIDE or role in actor.holds(held):
        return held, ()
    kept[actor.identity] = sorted({*kept.get(actor.identity, ()), str(role)})
    return held, (Put("project", project, found.version if found else 0, {"duties": kept}),)
