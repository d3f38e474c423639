"""What a networks document asks for, as it is served."""

from __future__ import annotations

import pytest

from services.network.networks.model import Network, NetworksDocument
from services.network.networks.subnets import Dns, Subnet, SubnetMode
from services.network.serving.model import Mode
from services.network.serving.translate import served


@pytest.mark.parametrize("mode", list(SubnetMode))
def test_every_mode_of_a_document_is_served(mode: SubnetMode) -> None:
    """Under the same name, and only an isolated one does not ask the host's servers for names."""
    subnet = Subnet(gateway="10.20.0.1/24", mode=mode, dns=Dns())
    document = NetworksDocument(networks=(Network(name="guests", bridge="br0", subnets=(subnet,)),))

    (network,) = served(document)

    found = network.subnets[0]
    assert found.mode is Mode(mode.value)
    assert found.dns is not None
    assert found.dns.use_host_resolvers is (mode is not SubnetMode.ISOLATED)
