"""HashiCorp Vault and OpenBao: two providers that share a login.

``vault`` reads the key-value engine, version 2, and ``vault-api`` any path, such as
``database/static-creds/novacron#password``.

A credential with a lease is kept, sealed, for as long as the lease can be renewed: another read
would make another credential.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from services.security.secrets.errors import (
    ProviderUnavailableError,
    RotationRefusedError,
    SecretDeniedError,
    SecretMissingError,
    SecretUnusableError,
)
from services.security.secrets.provider import Secret, make_secret, split_field
from services.security.secrets.sealer import Sealer
from services.security.secrets.vault_session import RENEW_AT, RETRY_S, Document, VaultSession

FIELD_DEFAULT = "value"


class VaultProvider:
    """The key-value engine, version 2.

    Args:
        session: logs in.
        mount: where the engine is mounted.
    """

    name = "vault"
    is_static = False

    def __init__(self, session: VaultSession, mount: str) -> None:
        self._session = session
        self._mount = mount

    def get(self, name: str) -> Secret:
        """A field, ``value`` unless the name says another one, of the newest version."""
        path, field = split_field(name)
        return self._secret(self._read(path), name, field or FIELD_DEFAULT)

    def rotate(self, name: str, value: str) -> Secret:
        """Write the next version, with the other fields as they are, if nobody else did."""
        path, field = split_field(name)
        make_secret(value, where=name, version="new")
        found = self._read(path)
        content = {**found["data"], field or FIELD_DEFAULT: value}
        version = found["metadata"]["version"]
        try:
            self._session.call(
                lambda client: client.secrets.kv.v2.create_or_update_secret(
                    path=path, secret=content, cas=version, mount_point=self._mount
                ),
                where=f"a new version of {self._mount}/{path}",
            )
        except SecretDeniedError as exc:
            raise RotationRefusedError(exc.message) from exc
        return self.get(name)

    def health(self) -> str:
        """Vault's own health."""
        return self._session.health()

    def maintain(self) -> float | None:
        """Renew the token."""
        return self._session.renew()

    def close(self) -> None:
        """Close the session."""
        self._session.close()

    def _read(self, path: str) -> Document:
        found = self._session.call(
            lambda client: client.secrets.kv.v2.read_secret_version(
                path=path, mount_point=self._mount, raise_on_deleted_version=True
            ),
            where=f"secret {self._mount}/{path}",
        )
        data = found.get("data")
        if not isinstance(data, dict) or "metadata" not in data:
            raise SecretUnusableError(
                f"{self._mount} is not a key-value engine of version 2: use vault-api for others"
            )
        return data

    def _secret(self, data: Document, name: str, field: str) -> Secret:
        where = f"the field {field} of {self._mount}/{split_field(name)[0]}"
        if field not in data["data"]:
            raise SecretMissingError(f"Vault has no {where.removeprefix('the ')}")
        metadata = data["metadata"]
        return make_secret(
            data["data"][field],
            where=where,
            version=str(metadata["version"]),
            created_s=_time_s(metadata.get("created_time")),
            expires_s=_time_s(metadata.get("deletion_time")),
        )


@dataclass(slots=True)
class _Lease:
    lease_id: str
    sealed: bytes
    made_s: float
    expires_s: float
    renew_due_s: float
    is_renewable: bool


class VaultApiProvider:
    """Any path that Vault lets us read, with its lease.

    Args:
        session: logs in.
        clock_s: Unix time.
    """

    name = "vault-api"
    is_static = False

    def __init__(self, session: VaultSession, clock_s: Callable[[], float] = time.time) -> None:
        self._session = session
        self._clock_s = clock_s
        self._sealer = Sealer()
        self._leases: dict[str, _Lease] = {}

    def get(self, name: str) -> Secret:
        """A field of what the path holds; read anew unless a lease on it lasts."""
        path, field = split_field(name)
        lease = self._leases.get(path)
        if lease is not None and lease.expires_s > self._clock_s():
            data = json.loads(self._sealer.open(lease.sealed, context=path))
            return self._secret(data, name, field, lease.lease_id, lease.made_s, lease.expires_s)
        found = self._session.call(lambda client: client.read(path), where=path)
        data = found.get("data") or {}
        now_s = self._clock_s()
        life_s = found.get("lease_duration") or data.get("ttl") or 0
        expires_s = now_s + life_s if life_s else None
        if found.get("lease_id"):
            self._keep(path, found, now_s)
        version = found.get("lease_id") or str(data.get("last_vault_rotation") or "newest")
        return self._secret(data, name, field, version, now_s, expires_s)

    def rotate(self, name: str, value: str) -> Secret:  # noqa: ARG002 - the interface's
        """Refuse: Vault makes these values itself."""
        raise RotationRefusedError(
            f"Vault makes {split_field(name)[0]} itself: rotate it there, such as by "
            "'vault write -f database/rotate-role/NAME', then take the newest"
        )

    def health(self) -> str:
        """Vault's own health."""
        return self._session.health()

    def maintain(self) -> float | None:
        """Renew leases and the token; a lease that can't be renewed is let go of."""
        next_s = self._session.renew()
        now_s = self._clock_s()
        for path, lease in list(self._leases.items()):
            if lease.renew_due_s <= now_s:
                self._renew(path, lease)
        pauses = [lease.renew_due_s - now_s for lease in self._leases.values()]
        if next_s is not None:
            pauses.append(next_s)
        return max(0.0, min(pauses)) if pauses else None

    def close(self) -> None:
        """Close the session; leases run out by themselves."""
        self._session.close()

    def _keep(self, path: str, found: Document, now_s: float) -> None:
        life_s = float(found["lease_duration"])
        self._leases[path] = _Lease(
            lease_id=found["lease_id"],
            sealed=self._sealer.seal(json.dumps(found["data"]), context=path),
            made_s=now_s,
            expires_s=now_s + life_s,
            renew_due_s=now_s + RENEW_AT * life_s,
            is_renewable=bool(found.get("renewable")),
        )

    def _renew(self, path: str, lease: _Lease) -> None:
        if not lease.is_renewable:
            del self._leases[path]
            return
        try:
            found = self._session.call(
                lambda client: client.sys.renew_lease(lease_id=lease.lease_id),
                where=f"the lease of {path}",
            )
        except ProviderUnavailableError:
            lease.renew_due_s = self._clock_s() + RETRY_S
            return
        except (SecretDeniedError, SecretMissingError):
            del self._leases[path]  # the next read makes another credential
            return
        now_s, life_s = self._clock_s(), float(found["lease_duration"])
        lease.expires_s = now_s + life_s
        lease.renew_due_s = now_s + RENEW_AT * life_s

    @staticmethod
    def _secret(
        data: Document,
        name: str,
        field: str,
        version: str,
        created_s: float,
        expires_s: float | None,
    ) -> Secret:
        field = field or FIELD_DEFAULT
        path = split_field(name)[0]
        if field not in data:
            raise SecretMissingError(f"Vault has no field {field} in {path}")
        return make_secret(
            data[field],
            where=f"the field {field} of {path}",
            version=version,
            created_s=created_s,
            expires_s=expires_s,
        )


def _time_s(text: object) -> float | None:
    """Unix time of RFC 3339 with up to nine digits of fraction."""
    if not isinstance(text, str) or not text:
        return None
    whole, _, rest = text.rstrip("Z").partition(".")
    try:
        at = datetime.fromisoformat(f"{whole}+00:00").timestamp()
        return at + float(f"0.{rest}") if rest.isdigit() else at
    except ValueError:
        return None
