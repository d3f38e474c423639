"""A secret of the configuration that stands elsewhere, as a value of the model.

Apart from services.config.references, which is loaded where there is no model.
"""

from __future__ import annotations

from pydantic import SecretStr

from services.security.secrets.reference import SecretName, parse_reference


class SecretReference(SecretStr):
    """A secret that a provider has; what it holds is the reference, which is no secret itself.

    Attributes:
        name: which secret.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.name: SecretName = parse_reference(text)

    def __str__(self) -> str:
        return self.get_secret_value()
