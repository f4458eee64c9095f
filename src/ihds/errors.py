"""Every failure IHDS can raise, each with a stable code, an exit status and a remedy.

IhdsError
├── BadInput                what a person typed or sent cannot be used
│   ├── BadTable            a file or frame of patients cannot be read as a table
│   ├── BadFormula          a model formula cannot be parsed or asks for something not allowed
│   ├── UnknownVariable     a name stands in no codebook
│   ├── BadLevel            a category is unknown, seen at one site only, or too small
│   └── BadMessage          a protocol message is malformed
│       ├── TooLarge        a body is larger than is taken
│       └── TooSlow         a request does not arrive in time
├── AnalysisFailed          the mathematics has no answer for these data
│   ├── NoEvents            a survival method met no event
│   ├── ConstantColumn      a covariate does not vary
│   ├── Collinear           covariates determine one another
│   ├── Separation          a covariate predicts the outcome perfectly
│   ├── DidNotConverge      the rounds were used up
│   └── OutOfRange          a sum does not fit the declared fixed-point range
├── Refused                 a policy, permit or the gate said no; carries the reasons
│   └── TooNoisy            noise would hide the answer; nothing of the privacy budget was spent
├── NotAuthenticated        a token or signature is missing, foreign, expired or replayed
│   └── CannotVerify        a signer's key or a credential's status cannot be learnt now: no, for this time
├── NotFound                no such thing, or the caller may not know of it
├── IllegalTransition       a message does not fit the state of its conversation
├── Conflict                somebody else changed the record first
├── SiteMissing             a holder did not answer; the study waits and can be resumed
├── PeerFailed              another node answered with an error
├── AuditBroken             a log does not prove itself
└── SetupFailed             this machine or its configuration is not ready

A *refusal* inside a decision is a value (``governance.policy.Refused``); the exception of that
name exists only to carry such a value across a process boundary.
"""

from __future__ import annotations

from typing import ClassVar


class IhdsError(Exception):
    """A failure that says what is wrong, why, and what to do."""

    code: ClassVar[str] = "IHDS-0"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, remedy: str = "", reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.reasons = reasons

    def __str__(self) -> str:
        parts = [self.message, *(f"  - {reason}" for reason in self.reasons)]
        if self.remedy:
            parts.append(f"What to do: {self.remedy}")
        return "\n".join(parts)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form used by every HTTP binding and by ``--json``."""
        return {
            "code": self.code,
            "message": self.message,
            "reasons": list(self.reasons),
            "remedy": self.remedy,
        }


class BadInput(IhdsError):
    """What a person typed or sent cannot be used."""

    code = "IHDS-INPUT"
    exit_status = 10
    http_status = 400


class BadTable(BadInput):
    """A file or frame of patients cannot be read as a table."""

    code = "IHDS-TABLE"


class BadFormula(BadInput):
    """A model formula cannot be parsed, or asks for something that is not allowed."""

    code = "IHDS-FORMULA"


class UnknownVariable(BadInput):
    """A variable stands in no codebook."""

    code = "IHDS-VARIABLE"


class BadLevel(BadInput):
    """A category is unknown, is seen at one site only, or holds too few persons."""

    code = "IHDS-LEVEL"


class BadMessage(BadInput):
    """A protocol message is malformed."""

    code = "IHDS-MESSAGE"


class TooLarge(BadMessage):
    """A body is larger than is taken."""

    code = "IHDS-TOO-LARGE"
    http_status = 413


class TooSlow(BadMessage):
    """A request does not arrive in time."""

    code = "IHDS-TOO-SLOW"
    http_status = 408


class AnalysisFailed(IhdsError):
    """The mathematics has no answer for these data."""

    code = "IHDS-ANALYSIS"
    exit_status = 11
    http_status = 422


class NoEvents(AnalysisFailed):
    """A survival method met no event."""

    code = "IHDS-NO-EVENTS"


class ConstantColumn(AnalysisFailed):
    """A covariate does not vary over all sites together."""

    code = "IHDS-CONSTANT"


class Collinear(AnalysisFailed):
    """Some covariates determine one another."""

    code = "IHDS-COLLINEAR"


class Separation(AnalysisFailed):
    """A covariate predicts the outcome perfectly, so its coefficient is infinite."""

    code = "IHDS-SEPARATION"


class DidNotConverge(AnalysisFailed):
    """The permitted rounds were used up before the estimate settled."""

    code = "IHDS-CONVERGENCE"


class OutOfRange(AnalysisFailed):
    """A value does not fit the fixed-point range its field declares."""

    code = "IHDS-RANGE"


class Refused(IhdsError):
    """A policy, a permit or the gate said no."""

    code = "IHDS-REFUSED"
    exit_status = 12
    http_status = 403


class TooNoisy(Refused):
    """Noise would hide the answer: refused before anything of the privacy budget is spent."""

    code = "IHDS-TOO-NOISY"


class NotAuthenticated(IhdsError):
    """A token or signature is missing, foreign, expired or replayed."""

    code = "IHDS-AUTH"
    exit_status = 13
    http_status = 401


class CannotVerify(NotAuthenticated):
    """A signer's key or a credential's status cannot be learnt now; not knowing means no, until asked again."""

    code = "IHDS-CANNOT-VERIFY"


class NotFound(IhdsError):
    """There is no such thing, or the caller may not know of it."""

    code = "IHDS-NOT-FOUND"
    exit_status = 14
    http_status = 404


class IllegalTransition(IhdsError):
    """A message or command does not fit the present state."""

    code = "IHDS-STATE"
    exit_status = 15
    http_status = 400


class Conflict(IhdsError):
    """Somebody else changed the record first."""

    code = "IHDS-CONFLICT"
    exit_status = 15
    http_status = 409


class SiteMissing(IhdsError):
    """A holder did not answer; the study waits and can be resumed."""

    code = "IHDS-SITE-MISSING"
    exit_status = 16
    http_status = 503


class PeerFailed(IhdsError):
    """Another node could not be reached or answered with an error."""

    code = "IHDS-PEER"
    exit_status = 16
    http_status = 502


class AuditBroken(IhdsError):
    """A log does not prove itself."""

    code = "IHDS-AUDIT"
    exit_status = 17


class SetupFailed(IhdsError):
    """The machine or its configuration is not ready."""

    code = "IHDS-SETUP"
    exit_status = 18


def all_errors() -> dict[str, type[IhdsError]]:
    """Return every error class by its code."""
    found: dict[str, type[IhdsError]] = {}
    queue: list[type[IhdsError]] = [IhdsError]
    while queue:
        cls = queue.pop()
        found[cls.code] = cls
        queue.extend(cls.__subclasses__())
    return found


def from_dict(body: dict[str, object]) -> IhdsError:
    """Rebuild the error another node or the node behind the CLI reported."""
    cls = all_errors().get(str(body.get("code")), PeerFailed)
    reasons = body.get("reasons")
    return cls(
        str(body.get("message", "the node gave no message")),
        remedy=str(body.get("remedy", "")),
        reasons=tuple(str(r) for r in reasons) if isinstance(reasons, list) else (),
    )
