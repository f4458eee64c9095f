"""Identifiers that cannot be mistaken for one another or for free text."""

from __future__ import annotations

import re
import uuid
from typing import ClassVar, Self

from ihds.errors import BadInput

_DID = re.compile(r"did:[a-z0-9]+:[A-Za-z0-9._:%/-]+")
_URN = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Identifier(str):
    """A checked string; ``parse`` is the only way in from outside."""

    __slots__ = ()
    noun: ClassVar[str] = "identifier"
    pattern: ClassVar[re.Pattern[str]] = _URN

    @classmethod
    def parse(cls, text: object) -> Self:
        """Check ``text`` and give it its type.

        Raises:
            BadInput: ``text`` is not such an identifier.

        """
        if not isinstance(text, str) or not cls.pattern.fullmatch(text):
            raise BadInput(
                f"{text!r} is not a {cls.noun}",
                remedy=f"give it in full, as it was printed ({cls.pattern.pattern[:12]}...)",
            )
        return cls(text)

    @classmethod
    def new(cls) -> Self:
        """Return a fresh random identifier."""
        return cls(uuid.uuid4().urn)


class PermitId(Identifier):
    """Names one version of one data permit (EHDS Art. 68)."""

    __slots__ = ()
    noun = "permit id"


class ApplicationId(Identifier):
    """Names a data access application (EHDS Art. 67)."""

    __slots__ = ()
    noun = "application id"


class AgreementId(Identifier):
    """Names an agreement of several institutions."""

    __slots__ = ()
    noun = "agreement id"


class StudyId(Identifier):
    """Names a study run under one permit."""

    __slots__ = ()
    noun = "study id"


class Did(Identifier):
    """Names an institution: a decentralised identifier (W3C DID 1.0)."""

    __slots__ = ()
    noun = "DID"
    pattern = _DID
