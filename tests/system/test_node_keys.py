"""novacronctl keys on a real node: rotation, backup, loss of the directory, restore."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.fix_node import Node, wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.redis, pytest.mark.libvirt, pytest.mark.process]

PASSPHRASE = "correct horse battery staple"


def test_keys_are_rotated_backed_up_and_restored(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    """What the docs promise: no downtime of a rotation, and a lost directory comes back."""
    node = make_node().start()
    phrase, saved = tmp_path / "phrase", tmp_path / "node.keys"
    phrase.write_text(PASSPHRASE + "\n")
    before = json.loads(node.ctl("keys", "status", "--json").stdout)

    assert node.ctl("keys", "rotate").returncode == 0
    assert node.ctl("keys", "rotate-master").returncode == 0
    assert node.ctl("keys", "reencrypt").returncode == 0

    def is_alone() -> bool:
        found = json.loads(node.ctl("keys", "status", "--json").stdout)
        return not found.get("has_old_master") and found["mirrored"] == found["generation"]

    wait_until(is_alone, "the database to have the keyset")
    after = json.loads(node.ctl("keys", "status", "--json").stdout)
    assert after["active"] != before["active"]
    assert after["master_id"] != before["master_id"]
    assert "none of this master key" in node.ctl("keys", "status").stdout
    assert after["active"] in node.ctl("keys", "list").stdout
    assert node.ctl("keys", "remove", "--retired").returncode == 0
    assert node.ctl("keys", "remove").returncode == 2
    assert "is active" in node.ctl("keys", "remove", after["active"]).stderr

    assert node.ctl("keys", "backup", str(saved)).returncode == 2  # no terminal to ask at
    done = node.ctl("keys", "backup", str(saved), "--passphrase-file", str(phrase))
    assert done.returncode == 0, done.stderr
    assert saved.stat().st_mode & 0o777 == 0o600
    assert node.ctl("keys", "backup", str(saved), "--passphrase-file", str(phrase)).returncode == 1
    assert node.ctl("keys", "rotate").returncode == 0  # the backup's keyset is older than this

    refused = node.ctl("keys", "restore", str(saved), "--passphrase-file", str(phrase))
    assert refused.returncode == 1
    assert "stop it first" in refused.stderr
    node.stop()
    security = node.state_dir / "security"
    shutil.rmtree(security)

    wrong = tmp_path / "wrong"
    wrong.write_text("incorrect horse battery\n")
    failed = node.ctl("keys", "restore", str(saved), "--passphrase-file", str(wrong))
    assert failed.returncode == 1
    assert "the passphrase is wrong" in failed.stderr
    restored = node.ctl("keys", "restore", str(saved), "--passphrase-file", str(phrase))
    assert restored.returncode == 0, restored.stderr
    assert node.ctl("keys", "adopt").returncode == 0
    node.start()

    last = json.loads(node.ctl("keys", "status", "--json").stdout)
    assert last["master_id"] == after["master_id"]
    assert last["active"] != after["active"]
    assert last["generation"] >= after["generation"]
    assert (node.ctl("audit", "verify", "--json").returncode) == 0


def test_a_node_with_a_credential_keeps_no_master_key(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    """The variable that systemd sets reaches the process; without the credential nothing starts."""
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "kek").write_bytes(os.urandom(32))
    (credentials / "kek").chmod(0o400)
    node = make_node(
        fresh=True,
        NOVACRON_SECURITY_ENCRYPTION_MASTERKEY="credential:kek",
        CREDENTIALS_DIRECTORY=str(credentials),
    ).start()

    found = json.loads(node.ctl("keys", "status", "--json").stdout)
    refused = node.ctl("keys", "rotate-master")
    node.stop()

    assert (found["master_source"], found["master_place"]) == ("credential:kek", "outside")
    assert not (node.state_dir / "security/master.key").exists()
    assert "with .next behind it" in refused.stderr
    (credentials / "kek").unlink()
    node.start(wait=False)
    assert node.process is not None
    assert node.process.wait(30) != 0
    assert "the systemd credential 'kek' is not there" in node.errors + node.output
