"""A signer whose private key never leaves a PKCS#11 token: an HSM, a smart card, or a cloud KMS behind such a module.

Options: ``module`` (path of the library), ``token`` and ``key`` (labels), ``pin_file``. The extra
``ihds[pkcs11]`` installs what it needs.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from ihds.errors import SetupFailed
from ihds.wire.jose import compact, jwk_of

_LOCK = threading.Lock()  # a session serves one call at a time


@functools.cache
def _session(module: str, token: str, pin: str) -> Any:
    """Return this process's one session with a token: a token lets a process log in once."""
    import pkcs11

    return pkcs11.lib(module).get_token(token_label=token).open(user_pin=pin)


class Token:
    """One key of one token."""

    def __init__(self, options: Mapping[str, Any], kid: str) -> None:
        """Open the token.

        Raises:
            SetupFailed: module, token, PIN or key is not there.

        """
        self.kid = kid
        try:
            import pkcs11

            pin = Path(str(options["pin_file"])).read_text(encoding="utf-8").strip()
            session = _session(str(options["module"]), str(options["token"]), pin)
            label = str(options["key"])
            classes = pkcs11.ObjectClass
            self._private: Any = session.get_key(object_class=classes.PRIVATE_KEY, label=label)
            public = session.get_key(object_class=classes.PUBLIC_KEY, label=label)
            point = bytes(public[pkcs11.Attribute.EC_POINT])
        except ImportError as error:
            raise SetupFailed("PKCS#11 needs an extra", remedy="pip install 'ihds[pkcs11]'") from error
        except KeyError as error:
            raise SetupFailed(f"the signer lacks the option {error}", remedy="module, token, key, pin_file") from error
        except Exception as error:
            said = f"the token does not open: {type(error).__name__} {error}"
            raise SetupFailed(said, remedy="check module, token, key and pin_file") from error
        self._mechanism = pkcs11.Mechanism.ECDSA
        raw = point[2:] if point[:1] == b"\x04" and len(point) == 67 else point  # a DER octet string, or bare
        self._jwk = jwk_of(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw))

    def public_jwk(self) -> dict[str, Any]:
        """Return the public JWK."""
        return dict(self._jwk)

    def _raw(self, data: bytes) -> bytes:
        with _LOCK:
            return bytes(self._private.sign(hashlib.sha256(data).digest(), mechanism=self._mechanism))

    def sign(self, data: bytes) -> str:
        """Return a base64 ES256 signature of bytes."""
        return base64.b64encode(self._raw(data)).decode()

    def sign_jwt(self, claims: dict[str, Any], typ: str = "JWT", **header: Any) -> str:
        """Return a compact JWT of claims."""
        return compact(self.kid, claims, typ, header, self._raw)
