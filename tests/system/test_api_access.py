"""Who may use the gateway: tokens, certificates, roles, lockout, over real sockets and TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from protocol.errors import CallTimeoutError, PeerUnavailableError, RemoteCallError
from protocol.messages.access import Role
from protocol.messages.health import HealthState
from protocol.records import Plain, from_wire, to_wire
from services.api import tls as serving_tls
from services.api.errors import TlsFilesError
from services.api.service import ApiService
from services.security.errors import TokenRefusedError
from services.security.model import AppendRequest
from services.security.token_model import Bearer
from services.security.tokens import Presented, format_token
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext
from tests.fixtures.certificates import Authority, Pair
from tests.system.test_api_gateway import assert_problem, domains, status

TOKEN, SHOWN = format_token(bytes(range(42)))
OTHER, _ = format_token(bytes(range(1, 43)))


class Tree:
    """The processes that the gateway asks: the root, security, and a supervisor."""

    def __init__(self, role: Role = Role.OPERATOR) -> None:
        self.role = role
        self.records: list[AppendRequest] = []
        self.orders: list[tuple[str, Plain]] = []
        self.tried = 0
        self.audit_error: Exception | None = None
        self.token_error: Exception | None = None
        self.order_error: Exception | None = None
        self.recorded_before = 0

    def peers(self) -> dict[str, Any]:
        """Handlers by process and method."""
        return {
            "novacron": {"status": status},
            "core/vm": {"vm.list": domains},
            "security": {"token.verify": self.verify, "audit.append": self.append},
            "core": {"restart": self.order, "stop": self.order},
        }

    async def verify(self, request: Request) -> Plain:
        """Knows one token."""
        self.tried += 1
        if self.token_error is not None:
            raise self.token_error
        if from_wire(Presented, request.body) != SHOWN:
            refused = TokenRefusedError("the token is not known")
            raise RemoteCallError(f"security: {refused}", remote_code=refused.code)
        return to_wire(Bearer(id=SHOWN.id, name="ci", role=self.role, expires_s=1e12))

    async def append(self, request: Request) -> Plain:
        """Takes records, or not."""
        if self.audit_error is not None:
            raise self.audit_error
        self.records.append(from_wire(AppendRequest, request.body))
        return {"seq": len(self.records)}

    async def order(self, request: Request) -> Plain:
        """Carries an order out."""
        self.recorded_before = len(self.records)
        self.orders.append((request.method, request.body))
        if self.order_error is not None:
            raise self.order_error
        return {"state": "healthy", "reason": ""}


@asynccontextmanager
async def running(tree: Tree, *, tls: Any = None, **settings: Plain) -> Any:
    """A gateway on a free port, with a client for it."""
    context = MemoryServiceContext(
        path="api",
        settings={"port": 0, "call_timeout_s": 0.3, **settings},
        peers=tree.peers(),
    )
    service = ApiService()
    await service.init(context)
    try:
        told: Any = service.calls()["api.status"](Request("operator", "api.status", None, 1.0))
        scheme, verify = ("http", True) if tls is None else ("https", tls)
        url = f"{scheme}://127.0.0.1:{told['port']}"
        async with httpx.AsyncClient(base_url=url, verify=verify) as client:
            yield client, service, context
    finally:
        await service.terminate()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run one scenario in a loop of its own."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def bearer(token: str = TOKEN) -> dict[str, str]:
    """The header that shows a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(OTHER),
        bearer("nova_x"),
        bearer(TOKEN[:-1]),
        {"Authorization": "Basic cm9vdDpyb290"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN} {TOKEN}"},
        {"Authorization": "Bearer '; DROP TABLE api_tokens; --"},
        {"X-Forwarded-User": "root"},
    ],
)
def test_what_shows_no_good_token_gets_nothing(headers: dict[str, str]) -> None:
    """Every endpoint answers 401 with a challenge, the description of the API too."""

    async def scenario() -> None:
        async with running(Tree()) as (client, _service, _context):
            for path in ("nodes", "components", "vms", "caller", "openapi.json", "x"):
                response = await client.get(f"/api/v1/{path}", headers=headers)
                body = assert_problem(response, 401)
                assert body["code"] == "api.identity_refused"
                assert response.headers["www-authenticate"].startswith("Bearer")

    run(scenario)


def test_two_authorization_headers_are_refused() -> None:
    """What two readers could read differently is read by neither."""

    async def scenario() -> None:
        async with running(Tree()) as (client, _service, _context):
            twice = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {OTHER}")]
            response = await client.get("/api/v1/caller", headers=twice)
            assert_problem(response, 401)

    run(scenario)


def test_a_token_says_who_asks() -> None:
    """The bearer has the name and role that the token was made with."""

    async def scenario() -> None:
        async with running(Tree()) as (client, _service, _context):
            response = await client.get("/api/v1/caller", headers=bearer())
            assert response.json() == {"name": "ci", "role": "operator", "means": "token"}
            assert (await client.get("/api/v1/vms", headers=bearer())).status_code == 200

    run(scenario)


def test_an_operation_is_recorded_before_it_happens() -> None:
    """The record says who asked; the supervisor does it; the answer says what came of it."""

    async def scenario() -> None:
        tree = Tree()
        async with running(tree) as (client, _service, _context):
            url = "/api/v1/components/core/vm/restart"
            response = await client.post(url, headers=bearer())
            assert response.status_code == 200
            assert response.json() == {"path": "core/vm", "state": "healthy", "reason": ""}
            assert tree.orders == [("restart", {"id": "vm"})]
            assert tree.recorded_before == 1
            requested, ended = tree.records
            assert (requested.action, requested.subject) == ("api:restart", "core/vm")
            assert (requested.outcome.value, ended.outcome.value) == ("requested", "success")
            assert requested.fields["by"] == ended.fields["by"] == "token/ci"
            assert requested.fields["correlation"] == ended.fields["correlation"] != ""

    run(scenario)


@pytest.mark.parametrize(
    ("error", "status_code"),
    [
        (RemoteCallError("core: no", remote_code="supervisor.fixed_tree"), 502),
        (RemoteCallError("core: no", remote_code="supervisor.no_such_child"), 404),
        (CallTimeoutError("core did not answer"), 503),
    ],
)
def test_an_operation_that_fails_is_recorded_as_that(error: Exception, status_code: int) -> None:
    """The record of the request is followed by one that says how it went wrong."""

    async def scenario() -> None:
        tree = Tree()
        tree.order_error = error
        async with running(tree) as (client, _service, _context):
            response = await client.post("/api/v1/components/core/vm/stop", headers=bearer())
            body = assert_problem(response, status_code)
            requested, ended = tree.records
            assert (requested.outcome.value, ended.outcome.value) == ("requested", "failure")
            assert ended.fields["code"] == body["code"]

    run(scenario)


@pytest.mark.parametrize(
    "error",
    [
        PeerUnavailableError("security is not running"),
        CallTimeoutError("security did not answer"),
        RemoteCallError("security: full", remote_code="security.audit_queue_full"),
    ],
)
def test_what_can_not_be_recorded_is_not_done(error: Exception) -> None:
    """Without the audit log, nothing is started or stopped through the API."""

    async def scenario() -> None:
        tree = Tree()
        tree.audit_error = error
        async with running(tree) as (client, _service, _context):
            response = await client.post("/api/v1/components/core/vm/stop", headers=bearer())
            body = assert_problem(response, 503)
            assert body["code"] == "api.not_recorded"
            assert tree.orders == []

    run(scenario)


def test_a_role_that_is_too_low_does_nothing() -> None:
    """A viewer reads; an attempt to do more is refused and recorded."""

    async def scenario() -> None:
        tree = Tree(Role.VIEWER)
        async with running(tree) as (client, _service, _context):
            assert (await client.get("/api/v1/nodes", headers=bearer())).status_code == 200
            response = await client.post("/api/v1/components/core/vm/stop", headers=bearer())
            assert assert_problem(response, 403)["code"] == "api.forbidden"
            assert tree.orders == []
            assert [record.outcome.value for record in tree.records] == ["denied"]

    run(scenario)


@pytest.mark.parametrize("path", ["core/nothing", "vm", "core//vm", "..%2fcore%2fvm", "x" * 128])
def test_an_unknown_component_is_not_found(path: str) -> None:
    """Whatever the path says, only what the node has is handed to a supervisor."""

    async def scenario() -> None:
        tree = Tree()
        async with running(tree) as (client, _service, _context):
            response = await client.post(f"/api/v1/components/{path}/stop", headers=bearer())
            assert_problem(response, 404)
            assert tree.orders == []

    run(scenario)


def test_anonymous_access_is_for_this_host_by_its_own_names() -> None:
    """A page that points its own name at this host gets nothing, nor does anybody who acts."""

    async def scenario() -> None:
        tree = Tree()
        async with running(tree, anonymous_role="viewer") as (client, _service, _context):
            assert (await client.get("/api/v1/nodes")).status_code == 200
            named = {"Host": f"localhost:{client.base_url.port}"}
            assert (await client.get("/api/v1/nodes", headers=named)).status_code == 200
            for host in ("evil.example", "127.0.0.1.evil.example", "[::1", ""):
                response = await client.get("/api/v1/nodes", headers={"Host": host})
                assert_problem(response, 401)
            response = await client.post("/api/v1/components/core/vm/stop")
            assert_problem(response, 403)

    run(scenario)


def test_guessing_is_locked_out() -> None:
    """Ten refusals lock the address out, a good token too, and the security process has peace."""

    async def scenario() -> None:
        tree = Tree()
        async with running(tree) as (client, _service, context):
            for _ in range(10):
                assert (await client.get("/api/v1/nodes", headers=bearer(OTHER))).status_code == 401
            tried = tree.tried
            for token in (OTHER, TOKEN):
                response = await client.get("/api/v1/nodes", headers=bearer(token))
                body = assert_problem(response, 429)
                assert body["code"] == "api.locked_out"
                assert 0 < int(response.headers["retry-after"]) <= 60
            assert tree.tried == tried
            assert [name for name, _ in context.events] == ["api:locked-out"]

    run(scenario)


def test_a_success_forgets_the_failures() -> None:
    """Who mistypes now and then and gets in is not locked out."""

    async def scenario() -> None:
        async with running(Tree()) as (client, _service, _context):
            for _ in range(4):
                for _ in range(5):
                    await client.get("/api/v1/caller", headers=bearer(OTHER))
                response = await client.get("/api/v1/caller", headers=bearer())
                assert response.status_code == 200

    run(scenario)


def test_requests_count_per_identity() -> None:
    """One identity's flood is not another's, though both come from one address."""

    async def scenario() -> None:
        tree = Tree()
        async with running(tree, requests_per_minute=3, anonymous_role="viewer") as (
            client,
            _service,
            _context,
        ):
            codes = [
                (await client.get("/api/v1/caller", headers=bearer())).status_code for _ in range(4)
            ]
            assert codes == [200, 200, 200, 429]
            assert (await client.get("/api/v1/caller")).status_code == 200

    run(scenario)


def test_an_address_that_used_up_its_requests_has_no_token_tried() -> None:
    """Guesses cost the security process nothing then, and the answer says when to come back."""

    async def scenario() -> None:
        tree = Tree()
        async with running(tree, requests_per_minute=3) as (client, _service, _context):
            codes = [(await client.get("/api/v1/caller")).status_code for _ in range(4)]
            assert codes == [401, 401, 401, 429]
            response = await client.get("/api/v1/caller", headers=bearer())
            assert assert_problem(response, 429)["code"] == "http.too_many_requests"
            assert int(response.headers["retry-after"]) > 0
            assert tree.tried == 0

    run(scenario)


def test_without_the_security_process_nobody_is_refused_for_good() -> None:
    """503 and not 401, and no step towards a lockout."""

    async def scenario() -> None:
        tree = Tree()
        tree.token_error = PeerUnavailableError("security is not running")
        async with running(tree) as (client, _service, _context):
            for _ in range(12):
                response = await client.get("/api/v1/nodes", headers=bearer())
                assert assert_problem(response, 503)["code"] == "api.identity_unavailable"
            tree.token_error = None
            assert (await client.get("/api/v1/nodes", headers=bearer())).status_code == 200

    run(scenario)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Makes certificates."""
    return Authority(tmp_path, "authority")


def client_tls(authority: Authority, shown: Pair | None) -> ssl.SSLContext:
    """What a client trusts and shows."""
    context = ssl.create_default_context(cafile=str(authority.cert))
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    return context


def files(authority: Authority) -> dict[str, Plain]:
    """Settings of a gateway with TLS, and files for it that are new each time."""
    pair = authority.issue("server", "127.0.0.1")
    pair.key.chmod(0o600)
    return {
        "cert_file": str(pair.cert),
        "key_file": str(pair.key),
        "client_ca_file": str(authority.cert),
    }


@pytest.mark.parametrize(
    ("role", "status_code"), [("viewer", 403), ("operator", 200), ("root", 401)]
)
def test_a_client_certificate_is_an_identity(
    authority: Authority, role: str, status_code: int
) -> None:
    """CN is the name and O the role; a role that is none lets nobody in."""

    async def scenario() -> None:
        shown = authority.issue("alice", role=role)
        settings = files(authority)
        tls = client_tls(authority, shown)
        async with running(Tree(), tls=tls, **settings) as (client, _service, _context):
            response = await client.post("/api/v1/components/core/vm/restart")
            assert response.status_code == status_code
            if status_code != 401:
                told = (await client.get("/api/v1/caller")).json()
                assert told == {"name": "alice", "role": role, "means": "certificate"}

    run(scenario)


def test_a_certificate_of_another_authority_ends_the_handshake(
    authority: Authority, tmp_path: Path
) -> None:
    """An unknown authority's client, and an expired certificate, get no answer at all."""

    async def scenario() -> None:
        foreign = Authority(tmp_path, "foreign").issue("alice", role="admin")
        expired = authority.issue("bob", role="admin", is_expired=True)
        settings = files(authority)
        for shown in (foreign, expired):
            tls = client_tls(authority, shown)
            async with running(Tree(), tls=tls, **settings) as (client, _service, _context):
                with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                    await client.get("/api/v1/caller")

    run(scenario)


def test_a_token_works_over_tls_without_a_certificate(authority: Authority, tmp_path: Path) -> None:
    """Client certificates are asked for and not required."""

    async def scenario() -> None:
        tls = client_tls(authority, None)
        settings = files(authority)
        async with running(Tree(), tls=tls, **settings) as (client, _service, _context):
            assert (await client.get("/api/v1/caller", headers=bearer())).status_code == 200
            assert (await client.get("/api/v1/caller")).status_code == 401

    run(scenario)


def test_new_files_are_in_force_and_wrong_ones_are_not(authority: Authority) -> None:
    """A renewed certificate serves new connections; a broken one degrades and changes nothing."""

    async def scenario() -> None:
        settings = files(authority)
        tls = client_tls(authority, None)
        async with running(Tree(), tls=tls, **settings) as (client, service, _context):
            first = await serial(client, authority)
            files(authority)
            assert (await service.check()).state is HealthState.HEALTHY
            second = await serial(client, authority)
            Path(str(settings["cert_file"])).write_text("nothing")  # noqa: ASYNC240 - in memory
            health = await service.check()
            assert health.state is HealthState.DEGRADED
            assert "the old one is in force" in health.reason
            assert await serial(client, authority) == second != first

    run(scenario)


async def serial(client: httpx.AsyncClient, authority: Authority) -> int:
    """The serial number of the certificate that a new connection meets."""
    port = client.base_url.port
    context = client_tls(authority, None)
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate: Any = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    return int(certificate["serialNumber"], 16)


def test_a_handshake_that_never_ends_is_ended(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that connects and says nothing does not keep the connection."""

    async def scenario() -> None:
        monkeypatch.setattr("services.api.server.HANDSHAKE_TIMEOUT_S", 0.2)
        settings = files(authority)
        tls = client_tls(authority, None)
        async with running(Tree(), tls=tls, **settings) as (client, _service, _context):
            port = client.base_url.port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
            assert (await client.get("/api/v1/caller", headers=bearer())).status_code == 200

    run(scenario)


@pytest.mark.parametrize("what", ["missing", "mismatch", "readable", "garbage", "authority"])
def test_files_that_can_not_be_used_end_the_start(
    authority: Authority, tmp_path: Path, what: str
) -> None:
    """Each is a critical error that names the file, before anything listens."""
    settings = files(authority)
    key = Path(str(settings["key_file"]))
    if what == "missing":
        key.unlink()
    elif what == "mismatch":
        key.write_bytes(authority.issue("other").key.read_bytes())
    elif what == "readable":
        key.chmod(0o644)
    elif what == "garbage":
        Path(str(settings["cert_file"])).write_text("-----BEGIN CERTIFICATE-----\n")
    else:
        authority.cert.write_text("no certificate")

    async def scenario() -> None:
        with pytest.raises(TlsFilesError, match=str(tmp_path)):
            async with running(Tree(), **settings):
                pass

    run(scenario)
    assert serving_tls.HANDSHAKE_TIMEOUT_S > 0
