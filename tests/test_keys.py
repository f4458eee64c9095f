"""Keys: encrypted at rest, rotated without a pause, retired, or kept in a token that never gives them out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from cryptography.exceptions import InvalidTag

from ihds.connector.dcp.tokens import Identity, TokenGate
from ihds.errors import IhdsError, NotAuthenticated
from ihds.ids import Did
from ihds.wire.did import Resolver, document
from ihds.wire.http import Http
from ihds.wire.jose import SigningKey, verify_bytes, verify_jwt
from ihds.wire.keys import Keyring, passphrase
from tests.conftest import unavailable

DID = Did("did:web:lih.example")
OTHER = Did("did:web:other.example")


@pytest.fixture
def ring(tmp_path):
    return Keyring.create(tmp_path, DID, str(tmp_path / "secret" / "word"))


def test_a_copied_folder_is_no_node(ring, tmp_path):
    pem = (tmp_path / "key-1.pem").read_bytes()
    assert b"ENCRYPTED PRIVATE KEY" in pem
    for path in (tmp_path / "key-1.pem", tmp_path / "secret" / "word"):
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(IhdsError, match="passphrase"):
        SigningKey.from_pem(pem, "k", b"another word")
    with pytest.raises(IhdsError, match="passphrase"):
        SigningKey.from_pem(pem, "k", None)
    (tmp_path / "secret" / "word").unlink()
    with pytest.raises(IhdsError, match="cannot be read"):
        Keyring(tmp_path, DID, str(tmp_path / "secret" / "word"))


def test_the_environment_gives_the_passphrase_where_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("IHDS_PASSPHRASE", "from the environment")
    Keyring.create(tmp_path, DID)
    assert Keyring(tmp_path, DID).kid == f"{DID}#key-1"
    monkeypatch.setenv("IHDS_PASSPHRASE", "another")
    with pytest.raises(IhdsError, match="key-1 cannot be read"):
        Keyring(tmp_path, DID)


def test_a_second_node_in_a_folder_is_refused(ring, tmp_path):
    with pytest.raises(IhdsError, match="holds a node already"):
        Keyring.create(tmp_path, DID)


def test_rotation_changes_the_signer_and_old_signatures_stay_good_until_retired(ring, tmp_path):
    old = ring.sign_jwt({"iss": DID})
    jwk = ring.public_jwk()
    assert ring.rotate() == f"{DID}#key-2"
    fresh = ring.sign_jwt({"iss": DID})
    again = Keyring(tmp_path, DID, str(tmp_path / "secret" / "word"))
    assert again.kid == f"{DID}#key-2"
    assert verify_jwt(old, jwk)["iss"] == verify_jwt(fresh, again.public_jwk())["iss"] == DID
    resolver = Resolver(Http(), {DID: lambda: document(DID, ring.methods(), {})})
    assert resolver.verify(old, "assertionMethod")
    ring.retire("key-1")
    with pytest.raises(NotAuthenticated, match="no key"):
        resolver.verify(old, "assertionMethod")
    assert resolver.verify(fresh, "assertionMethod")
    assert not (tmp_path / "key-1.pem").exists()
    with pytest.raises(IhdsError, match="not a former key"):
        ring.retire("key-2")


def test_a_former_key_vouches_for_tokens_only_as_long_as_one_may_be_on_its_way(ring, monkeypatch):
    token = Identity(DID, ring).token(OTHER)
    late = Identity(DID, ring).token(OTHER)
    ring.rotate()
    resolver = Resolver(Http(), {DID: lambda: document(DID, ring.methods(), {})})
    assert TokenGate(OTHER, resolver).check(token)
    ring.entries[0].until -= 7200
    with pytest.raises(NotAuthenticated, match="capabilityInvocation"):
        TokenGate(OTHER, resolver).check(late)
    assert resolver.verify(token, "assertionMethod"), "what it signed for good stays good"


def test_secrets_in_the_database_are_sealed_for_this_node_only(ring, tmp_path_factory):
    sealed = ring.sealing.seal(b"mask key")
    assert ring.sealing.unseal(sealed) == b"mask key"
    assert sealed != ring.sealing.seal(b"mask key")
    folder = tmp_path_factory.mktemp("other")
    other = Keyring.create(folder, DID, str(folder / "word"))
    with pytest.raises(InvalidTag):
        other.sealing.unseal(sealed)


def test_a_signer_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(IhdsError, match="no signer 'crystal'"):
        Keyring.create(tmp_path, DID, str(tmp_path / "word"), "crystal")


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A PKCS#11 token in software, with one P-256 key made inside it; a process opens it once."""
    tmp_path = tmp_path_factory.mktemp("token")
    module = "/usr/lib/softhsm/libsofthsm2.so"
    if not Path(module).exists() or not shutil.which("softhsm2-util"):
        unavailable("SoftHSM (Debian: softhsm2) is not installed")
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    (tmp_path / "tokens").mkdir()
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(config)
    init = ["softhsm2-util", "--init-token", "--free", "--label", "lih", "--pin", "1234", "--so-pin", "5678"]
    subprocess.run(init, check=True, capture_output=True)
    (tmp_path / "pin").write_text("1234\n")
    with pkcs11.lib(module).get_token(token_label="lih").open(user_pin="1234", rw=True) as session:
        curve = session.create_domain_parameters(
            pkcs11.KeyType.EC,
            {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
            local=True,
        )
        curve.generate_keypair(store=True, label="node-key")
    return {"module": module, "token": "lih", "key": "node-key", "pin_file": str(tmp_path / "pin")}


def test_a_key_in_a_token_signs_like_any_other_and_lies_in_no_file(token, tmp_path):
    folder = tmp_path / "node"
    folder.mkdir()
    ring = Keyring.create(folder, DID, str(tmp_path / "word"), "pkcs11", token)
    assert verify_jwt(ring.sign_jwt({"iss": DID}), ring.public_jwk()) == {"iss": DID}
    assert verify_bytes(b"data", ring.sign(b"data"), ring.public_jwk())
    assert not verify_bytes(b"other", ring.sign(b"data"), ring.public_jwk())
    assert not list(folder.glob("*.pem"))
    ring.rotate()  # to a file
    assert ring.rotate("pkcs11", token) == f"{DID}#key-3"  # and back
    with pytest.raises(IhdsError, match="lacks the option"):
        ring.rotate("pkcs11", {})
    with pytest.raises(IhdsError, match="does not open"):
        ring.rotate("pkcs11", {**token, "pin_file": "/nowhere"})


def test_a_whole_node_runs_on_a_token(token, tmp_path):
    from ihds.roles import node
    from ihds.roles.config import NodeConfig

    config = NodeConfig(
        "lih",
        "user",
        "LU",
        "http://127.0.0.1:1",
        1,
        passphrase_file=str(tmp_path / "word"),
        signer="pkcs11",
        signer_options=token,
    )
    node.create(tmp_path / "lih", config)
    assert node.verify_folder(tmp_path / "lih")["proved"]
    opened = node.Node(tmp_path / "lih")
    assert opened.rotate_key("file", {})["key"].endswith("#key-2")
    assert node.verify_folder(tmp_path / "lih")["proved"]
    opened.store.close()


def test_a_passphrase_is_made_once(tmp_path):
    first = passphrase(tmp_path, DID, str(tmp_path / "word"), make=True)
    assert passphrase(tmp_path, DID, str(tmp_path / "word"), make=True) == first


def test_keys_rotate_in_a_running_space_and_nothing_stops(space):
    """Every institution rotates; tokens, credentials and contracts go on at once."""
    before = space.space("researcher").search("bladder")
    for name in space.configs:
        answer = space.space(name).call("key.rotate")
        assert answer["key"].endswith("#key-2")
    document_ = httpx.get(f"{space.configs['lih'].base_url}/.well-known/did.json").json()
    assert [m["id"][-5:] for m in document_["verificationMethod"]] == ["key-1", "key-2"]
    assert space.space("researcher").search("bladder") == before
    permit = space.permit()
    result = space.space("researcher").run("describe", permit=permit, variables="treatment")
    assert result.n > 80
    from ihds.roles.node import verify_folder

    for name in space.configs:
        assert verify_folder(space.folder / name)["proved"]


@pytest.fixture
def space(tmp_path):
    from tests.space import running

    with running(tmp_path) as made:
        yield made
