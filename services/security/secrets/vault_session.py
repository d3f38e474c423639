"""A login to HashiCorp Vault or OpenBao that lasts, through hvac.

The session logs in at its first use, renews its token after two thirds of the token's life, and
logs in again when the token is gone: Vault answers 403 to both a revoked token and a missing right,
so one new login tells them apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.security.secrets.errors import (
    PackageMissingError,
    ProviderUnavailableError,
    ProviderUnconfiguredError,
    SecretDeniedError,
    SecretMissingError,
)
from services.security.secrets.settings import VaultAuth, VaultSettings

Document = dict[str, Any]  # Any: JSON

RENEW_AT = 2 / 3
# A token without an end is looked at once in a while, to notice that it was revoked.
LOOK_PERIOD_S = 300.0
RETRY_S = 10.0
_JWT_BYTES_MAX = 64 << 10
_SEALED_STATUS = 503
# Unsealed and active, or a standby that forwards what it is asked.
_WELL = (200, 429, 472, 473)


class VaultSession:
    """A login that lasts.

    Args:
        settings: where and as whom.
        secret_id, token: give the current credential each time that they are asked.
        timeout_s: of one request.
        now_s: the clock; monotonic.
    """

    def __init__(
        self,
        settings: VaultSettings,
        *,
        secret_id: Callable[[], str],
        token: Callable[[], str],
        timeout_s: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            import hvac
            import requests
        except ImportError as exc:
            raise PackageMissingError(
                "Vault needs the package hvac: pip install 'novacron[vault]'"
            ) from exc
        if not settings.address:
            raise ProviderUnconfiguredError("security.secrets.vault.address is not set")
        self._settings = settings
        self._secret_id, self._token = secret_id, token
        self._now_s = now_s
        self._errors = hvac.exceptions
        self._lost = (requests.exceptions.RequestException, OSError)
        self._client = hvac.Client(
            url=settings.address,
            token="",  # not None, or hvac takes VAULT_TOKEN and ~/.vault-token
            namespace=settings.namespace or None,
            verify=settings.ca_file or True,
            timeout=timeout_s,
        )
        self._is_logged_in = False
        self._renew_due_s: float | None = None

    def call(self, work: Callable[[Any], Any], *, where: str) -> Document:  # Any: hvac is untyped
        """Carry out one request, logged in.

        Args:
            work: given hvac's client.
            where: what it is about, for errors.

        Raises:
            SecretError: by what the answer says.
        """
        if not self._is_logged_in:
            self._log_in()
        try:
            return self._once(work, where)
        except SecretDeniedError:
            self._log_in()
            return self._once(work, where)

    def renew(self) -> float | None:
        """Renew the token if that is due; seconds until the next time."""
        if self._renew_due_s is None:
            return None
        if self._now_s() >= self._renew_due_s:
            try:
                found = self._once(lambda client: client.auth.token.renew_self(), "the token")
                self._note_life(found["auth"]["lease_duration"], found["auth"]["renewable"])
            except SecretDeniedError:
                self._log_in()
            except ProviderUnavailableError:
                self._renew_due_s = self._now_s() + RETRY_S
        return max(0.0, self._renew_due_s - self._now_s())

    def health(self) -> str:
        """Ask ``sys/health``, which needs no login."""
        try:
            answer = self._client.sys.read_health_status(method="GET")
        except self._lost as exc:
            return f"{self._settings.address} does not answer: {_reason(exc)}"
        status = 200 if isinstance(answer, dict) else answer.status_code
        if status in _WELL:
            return ""
        meaning = {501: "is not initialised", _SEALED_STATUS: "is sealed"}
        return f"{self._settings.address} {meaning.get(status, f'answers {status}')}"

    def close(self) -> None:
        """Close the connections; the token runs out by itself."""
        self._client.adapter.close()

    def _log_in(self) -> None:
        self._is_logged_in = False
        match self._settings.auth:
            case VaultAuth.TOKEN:
                self._client.token = self._token()
                found = self._once(lambda client: client.auth.token.lookup_self(), "the token")
                life_s, is_renewable = found["data"]["ttl"], found["data"].get("renewable", False)
            case VaultAuth.APPROLE:
                found = self._once(self._app_role, "the login with AppRole")
                life_s, is_renewable = _life(found)
            case VaultAuth.KUBERNETES:
                found = self._once(self._kubernetes, "the login with Kubernetes")
                life_s, is_renewable = _life(found)
        self._is_logged_in = True
        self._note_life(life_s, is_renewable)

    def _app_role(self, client: Any) -> Any:  # Any: hvac is untyped
        return client.auth.approle.login(
            role_id=self._settings.role_id,
            secret_id=self._secret_id(),
            mount_point=self._settings.auth_mount or "approle",
        )

    def _kubernetes(self, client: Any) -> Any:  # Any: hvac is untyped
        path = Path(self._settings.jwt_file)
        try:
            with path.open() as file:
                jwt = file.read(_JWT_BYTES_MAX).strip()
        except OSError as exc:
            raise SecretDeniedError(f"can't read {path}: {exc.strerror}") from exc
        return client.auth.kubernetes.login(
            role=self._settings.kubernetes_role,
            jwt=jwt,
            mount_point=self._settings.auth_mount or "kubernetes",
        )

    def _note_life(self, life_s: float, is_renewable: bool) -> None:  # noqa: FBT001 - Vault's pair
        pause_s = RENEW_AT * life_s if life_s and is_renewable else LOOK_PERIOD_S
        if life_s and not is_renewable:
            pause_s = RENEW_AT * life_s  # the renewal is refused, and a new login follows
        self._renew_due_s = self._now_s() + max(pause_s, 1.0)

    def _once(self, work: Callable[[Any], Any], where: str) -> Document:
        errors, address = self._errors, self._settings.address
        try:
            answer = work(self._client)
        except errors.InvalidPath as exc:
            raise SecretMissingError(
                f"Vault has no {where.removeprefix('the ')}{_deleted(exc.json)}"
            ) from exc
        except (errors.Forbidden, errors.Unauthorized) as exc:
            raise SecretDeniedError(
                f"Vault does not let us have {where}: the token was revoked or has run out, or "
                "its policy lacks the right to read"
            ) from exc
        except (errors.InvalidRequest, errors.UnsupportedOperation) as exc:
            raise SecretDeniedError(f"Vault refuses {where}: {_errors(exc)}") from exc
        except errors.VaultDown as exc:
            raise ProviderUnavailableError(f"{address} is sealed or in maintenance") from exc
        except errors.VaultError as exc:
            raise ProviderUnavailableError(f"{address} fails at {where}: {_errors(exc)}") from exc
        except self._lost as exc:
            raise ProviderUnavailableError(f"{address} does not answer: {_reason(exc)}") from exc
        if answer is None:
            raise SecretMissingError(f"Vault has no {where}")
        if not isinstance(answer, dict):
            raise ProviderUnavailableError(f"{address} answers no JSON: is it a Vault?")
        return answer


def _life(found: Document) -> tuple[float, bool]:
    auth = found.get("auth")
    if not isinstance(auth, dict):
        raise ProviderUnavailableError("Vault answers a login without a token: is it a Vault?")
    return float(auth["lease_duration"]), bool(auth["renewable"])


def _deleted(answer: object) -> str:
    try:
        deleted = answer["data"]["metadata"]["deletion_time"]  # type: ignore[index] # JSON
    except (KeyError, TypeError):
        return ""
    return f": its newest version was deleted at {deleted}"


def _errors(error: Any) -> str:  # Any: hvac is untyped
    return ", ".join(error.errors or ()) or "no reason given"


def _reason(error: Exception) -> str:
    """One short line: requests nests the cause, with addresses of objects."""
    text = str(error)
    for mark in ("CERTIFICATE_VERIFY_FAILED", "Connection refused", "timed out", "resolve"):
        if mark in text:
            return {
                "CERTIFICATE_VERIFY_FAILED": "its certificate is not one that caFile vouches for",
                "resolve": "its name is not known",
            }.get(mark, mark.lower())
    return type(error).__name__
