"""AWS Secrets Manager, through botocore: boto3's sessions and resources would add nothing.

A name is the secret's name or ARN, with ``#field`` for a field of a secret that is a JSON object.
Credentials are those of the settings, or found as all of AWS's tools find them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from services.security.secrets.errors import (
    PackageMissingError,
    ProviderUnavailableError,
    ProviderUnconfiguredError,
    RotationRefusedError,
    SecretDeniedError,
    SecretError,
    SecretMissingError,
    SecretUnusableError,
)
from services.security.secrets.provider import (
    Secret,
    field_of_json,
    json_object,
    make_secret,
    split_field,
)
from services.security.secrets.sealer import Sealer
from services.security.secrets.settings import AwsSettings

_MISSING = ("ResourceNotFoundException", "InvalidRequestException")  # the latter: marked deleted
_DENIED = (
    "AccessDeniedException",
    "AccessDenied",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "ExpiredTokenException",
    "ExpiredToken",
    "KMSAccessDeniedException",
)


class AwsProvider:
    """Reads and writes secrets of one region.

    Args:
        settings: where and as whom.
        secret_access_key: gives the current key; "" for AWS's own search.
        timeout_s: of one request.
    """

    name = "aws"
    is_static = False

    def __init__(
        self, settings: AwsSettings, *, secret_access_key: Callable[[], str], timeout_s: float
    ) -> None:
        try:
            import botocore.config
            import botocore.exceptions
            import botocore.session
        except ImportError as exc:
            raise PackageMissingError(
                "AWS needs the package botocore: pip install 'novacron[aws]'"
            ) from exc
        if not settings.region:
            raise ProviderUnconfiguredError("security.secrets.aws.region is not set")
        # At DEBUG it logs bodies of answers.
        logging.getLogger("botocore").setLevel(logging.WARNING)
        self._settings = settings
        self._errors = botocore.exceptions
        self._session = botocore.session.get_session()
        self._config = botocore.config.Config(
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            # Who calls repeats, and knows how much time is left.
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        self._key = secret_access_key
        self._sealer = Sealer()
        self._key_digest = b""
        self._client: Any = None  # botocore is untyped

    def get(self, name: str) -> Secret:
        """The version that is labelled AWSCURRENT."""
        path, field = split_field(name)
        return self._secret(self._read(path), path, field)

    def rotate(self, name: str, value: str) -> Secret:
        """Put a version with the value; it becomes AWSCURRENT, the one before AWSPREVIOUS."""
        path, field = split_field(name)
        make_secret(value, where=name, version="new")
        text = value
        if field:
            document = json_object(self._read(path)["SecretString"], where=path)
            text = json.dumps({**document, field: value})
        # The same request after a lost answer makes no second version.
        token = hashlib.sha256(f"{path}\0{text}".encode()).hexdigest()[:32]
        try:
            self._call(
                path,
                lambda: self._client.put_secret_value(
                    SecretId=path, SecretString=text, ClientRequestToken=token
                ),
            )
        except SecretDeniedError as exc:
            raise RotationRefusedError(exc.message) from exc
        return self.get(name)

    def health(self) -> str:
        """Ask for a secret that can't be there: whoever says so is well and knows us."""
        try:
            self._read("novacron-health-check")
        except SecretMissingError:
            return ""
        except SecretDeniedError:
            return ""  # it answers; what we may read is told per secret
        except SecretError as exc:
            return exc.message
        return ""

    def maintain(self) -> None:
        """The library renews its own credentials."""

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> None:
        """Make a client, or another one once our key was replaced."""
        key, settings = self._key(), self._settings
        digest = self._sealer.digest(key)
        if self._client is not None and digest == self._key_digest:
            return
        self.close()
        self._key_digest = digest
        self._client = self._session.create_client(
            "secretsmanager",
            region_name=settings.region,
            endpoint_url=settings.endpoint or None,
            verify=settings.ca_file or None,
            aws_access_key_id=settings.access_key_id or None,
            aws_secret_access_key=key or None,
            config=self._config,
        )

    def _read(self, path: str) -> dict[str, Any]:  # Any: the API's record
        found: dict[str, Any] = self._call(
            path, lambda: self._client.get_secret_value(SecretId=path)
        )
        return found

    def _secret(self, found: dict[str, Any], path: str, field: str) -> Secret:
        text = found.get("SecretString")
        if text is None:
            raise SecretUnusableError(f"{path} is binary and not a text")
        value = field_of_json(text, field, where=path) if field else text
        created = found.get("CreatedDate")
        return make_secret(
            value,
            where=f"{path}#{field}" if field else path,
            version=str(found.get("VersionId", "")),
            created_s=created.timestamp() if isinstance(created, datetime) else None,
        )

    def _call(self, path: str, work: Callable[[], Any]) -> Any:  # Any: botocore is untyped
        errors = self._errors
        self._connect()
        try:
            return work()
        except errors.ClientError as exc:
            code = exc.response.get("Error", {}).get("Code", "")
            if code in _MISSING:
                raise SecretMissingError(
                    f"AWS has no secret {path} in {self._settings.region}"
                ) from exc
            if code in _DENIED:
                raise SecretDeniedError(f"AWS does not let us have {path}: {code}") from exc
            raise ProviderUnavailableError(f"AWS fails at {path}: {code}") from exc
        except (errors.NoCredentialsError, errors.PartialCredentialsError) as exc:
            raise SecretDeniedError(
                "AWS needs credentials: an instance role, AWS's variables or files, or "
                "security.secrets.aws.accessKeyId and secretAccessKey"
            ) from exc
        except (errors.BotoCoreError, OSError) as exc:
            raise ProviderUnavailableError(
                f"AWS Secrets Manager does not answer: {type(exc).__name__}"
            ) from exc
