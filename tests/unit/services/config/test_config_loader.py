"""Tiers in order, origins, references, and errors of the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.config.errors import MASK, ProblemKind
from services.config.keys import key_table
from services.config.loader import changes, load
from services.config.model import Config
from services.config.origins import OriginKind

SECRET = "hunter2-never-shown"


def test_a_later_tier_wins(directory) -> None:
    """Default file, environment file, variable, flag, in this order, key by key."""
    directory.write(
        default="""
        system: {maxConcurrency: 1, group: one, logLevel: debug, dataDir: /one}
        """,
        lab="""
        system: {group: two, logLevel: error, dataDir: /two}
        """,
    )
    environ = {"NOVACRON_SYSTEM_LOGLEVEL": "warning", "NOVACRON_SYSTEM_DATADIR": "/three"}

    loaded = directory.load(environ, {"system.dataDir": "/four"})

    system = loaded.config.system
    assert (system.max_concurrency, system.group) == (1, "two")
    assert (system.log_level.value, system.data_dir) == ("warning", Path("/four"))
    assert {key: str(origin) for key, origin in loaded.origins.items() if "system" in key} == {
        "system.dataDir": "--state-dir",
        "system.logDir": "built in",
        "system.logLevel": "NOVACRON_SYSTEM_LOGLEVEL",
        "system.maxConcurrency": f"{directory.path}/config.default.yaml:2",
        "system.shutdownTimeout": "built in",
        "system.serviceUser": "built in",
        "system.group": f"{directory.path}/config.lab.yaml:2",
    }


def test_json_and_yaml_mean_the_same(directory) -> None:
    """The same keys in either format give the same configuration."""
    directory.write(lab="api:\n  port: 81\nplatform:\n  roles: [backend]\n")
    from_yaml = directory.load().config
    for file in directory.path.iterdir():
        file.unlink()
    directory.write(lab='{"api": {"port": 81}, "platform": {"roles": ["backend"]}}', suffix="json")

    assert directory.load().config == from_yaml


def test_a_list_replaces_a_list(directory) -> None:
    """Lists are values and are not joined."""
    directory.write(
        default="platform: {roles: [backend, orchestration]}", lab="platform: {roles: [backend]}"
    )

    assert [role.value for role in directory.load().config.platform.roles] == ["backend"]


def test_a_section_without_keys_sets_nothing(directory) -> None:
    """A section whose keys are all commented out is fine."""
    directory.write(lab="api:\n  # port: 81\nsystem: {}\n")

    assert directory.load().config.api.port == 8080


def test_the_environment_is_what_was_chosen(directory) -> None:
    """The key says which environment applies and who chose it."""
    directory.write(default="environment: production", lab="{}")

    loaded = directory.load()

    assert loaded.config.environment == "lab"
    assert loaded.origins["environment"].kind is OriginKind.FLAG
    assert loaded.files == tuple(
        directory.path / f"config.{name}.yaml" for name in ("default", "lab")
    )


def test_an_environment_file_of_another_name_is_refused(directory) -> None:
    """A file copied under a new name must not claim to be the old one."""
    directory.write(lab="environment: production")

    problem = directory.problem()

    assert problem.kind is ProblemKind.ENVIRONMENT
    assert (problem.key, problem.origin.line) == ("environment", 1)
    assert (problem.found, problem.expected.split(",")[0]) == ("'production'", "lab")


def test_references_are_resolved_after_merging(directory) -> None:
    """A reference that a variable replaced needs nothing; others are converted like variables."""
    directory.write(
        default="""
        database:
          postgres:
            password: ${GONE}
            port: ${DB_PORT:-5433}
            host: db-${SITE}.example
            sslMode: ${MODE:-disable}
        platform: {roles: ["${ROLE}"]}
        dwcp: {enabled: "${DWCP:-false}"}
        system: {logDir: "${LOGS:-}"}
        """
    )
    environ = {"NOVACRON_DATABASE_POSTGRES_PASSWORD": SECRET, "SITE": "b", "ROLE": "backend"}

    loaded = directory.load(environ)

    postgres = loaded.config.database.postgres
    assert (postgres.port, postgres.host) == (5433, "db-b.example")
    assert postgres.password is not None
    assert postgres.password.get_secret_value() == SECRET
    assert not loaded.config.dwcp.enabled
    assert loaded.config.system.log_dir is None
    assert loaded.config.system.log_path == Path("/var/lib/novacron/logs")


def test_a_variable_for_an_embedded_profile_is_not_needed(directory) -> None:
    """What the environment's file sets to null refers to nothing any more."""
    directory.write(
        default="database: {postgres: {password: '${POSTGRES_PASSWORD}'}}",
        lab="database: {postgres: {password: null}}",
    )

    assert directory.load({}).config.database.postgres.password is None


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        (
            "api: {host: '${GONE}'}",
            "'${GONE}', not set",
            "the variable GONE in the environment, or",
        ),
        ("api: {host: 'x${'}", "'x${'", "references of the form ${NAME} or ${NAME:-text}"),
        ("platform: {roles: ['${GONE}']}", "['${GONE}'], not set", "the variable GONE in the env"),
        ("database: {redis: {password: '${GONE}'}}", "${GONE}, which is not set", "the variable G"),
        ("database: {redis: {password: 'hunter2-never-shown${'}}", MASK, "references of the form"),
    ],
)
def test_a_reference_to_nothing_is_refused(directory, text: str, found: str, expected: str) -> None:
    """The error names file, line, key and variable, and shows no part of a secret."""
    directory.write(lab=text)

    problem = directory.problem()

    assert (problem.kind, problem.origin.line) == (ProblemKind.REFERENCE, 1)
    assert problem.found == found
    assert problem.expected.startswith(expected)
    assert SECRET not in str(problem)


def test_a_wrong_value_of_a_reference_shows_both(directory) -> None:
    """The content and the reference that it came from are named."""
    directory.write(lab="api: {port: '${PORT}'}")

    problem = directory.problem({"PORT": "http"})

    assert problem.found == "'http' from ${PORT}"
    assert problem.expected == "a whole number from 1 to 65535"


@pytest.mark.parametrize(
    ("text", "line", "key", "hint"),
    [
        ("api:\n  prot: 1", 2, "api.prot", "did you mean api.port?"),
        ("api:\n  metricsPort: 1", 2, "api.metricsPort", "did you mean monitoring.metricsPort?"),
        ("dwcp:\n  transport:\n    max_streams: 1", 3, "dwcp.transport.max_streams",
         "did you mean dwcp.transport.maxStreams"),
        ("databse: {}", 1, "databse", "did you mean database?"),
        ("api:\n  zzz: 1", 2, "api.zzz", ""),
        ("1: 2", 1, "1", ""),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_closest(
    directory, text: str, line: int, key: str, hint: str
) -> None:
    """File, line and the likely key are named, in the same section or elsewhere."""
    directory.write(lab=text)

    problem = directory.problem()

    assert problem.kind is ProblemKind.UNKNOWN_KEY
    assert (problem.origin.line, problem.key) == (line, key)
    assert problem.expected.startswith("one of ")
    assert problem.hint.startswith(hint)
    assert bool(problem.hint) == bool(hint)


def test_an_unknown_key_of_the_default_file_is_refused_too(directory) -> None:
    """Every file is checked, not only what wins."""
    directory.write(default="api:\n  prot: 1\n")

    assert directory.problem().origin.name.endswith("config.default.yaml")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("database: {postgres: hunter2-never-shown}", "a single value"),
        ("api: [hunter2-never-shown]", "a list"),
        ("api: {port: {hunter2-never-shown: 1}}", "a section"),
        ("database: {postgres: {pasword: hunter2-never-shown}}", "a key that does not exist"),
    ],
)
def test_a_misplaced_value_is_refused_unseen(directory, text: str, found: str) -> None:
    """It may be a secret that slipped, so only its kind is shown."""
    directory.write(lab=text)

    problem = directory.problem()

    assert problem.found == found
    assert SECRET not in str(problem)


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("NOVACRON_API_PROT", "1", "did you mean NOVACRON_API_PORT"),
        ("NOVACRON_DATABASE_POSTGRES_PASWORD", SECRET, "did you mean NOVACRON_DATABASE_POSTGRES_P"),
        ("NOVACRON_DWCP_TRANSPORT_MAX_STREAMS", "1", "did you mean NOVACRON_DWCP_TRANSPORT_MAXSTR"),
        ("NOVACRON_XYZZY", "1", ""),
        ("NOVACRON_", "1", ""),
        ("NOVACRON_API", "1", ""),
        ("NOVACRON_PORT_8080_TCP_ADDR", "10.0.0.1", "Kubernetes sets it for a service"),
        ("NOVACRON_API_PORT", "tcp://10.0.0.1:8080", "Kubernetes sets it for a service"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_closest(
    directory, name: str, text: str, hint: str
) -> None:
    """A misspelt variable does not pass silently, and its value is not shown."""
    problem = directory.problem({name: text})

    assert problem.kind is ProblemKind.UNKNOWN_VARIABLE
    assert problem.origin.name == name
    assert problem.hint.startswith(hint)
    assert SECRET not in str(problem)


def test_reserved_and_foreign_variables_are_left_alone(directory) -> None:
    """The documented exceptions and other programs' variables set nothing."""
    environ = {
        "NOVACRON_CONFIG_DIR": "/elsewhere",
        "NOVACRON_ENVIRONMENT": "elsewhere",
        "NOVACRON_TEST_POSTGRES": "1",
        "NOVACRONX": "1",
        "novacron_api_port": "1",
    }

    assert directory.load(environ).config == directory.load().config


def test_everything_wrong_is_listed_at_once(directory) -> None:
    """Values, keys, variables, references and rules are collected, in reading order."""
    directory.write(
        default="""
        api:
          port: 0
        """,
        lab="""
        system:
          logLevel: loud
          nothing: 1
          dataDir: ${GONE}
        dwcp:
          transport:
            minStreams: 300
        """,
    )

    problems = directory.problems({"NOVACRON_XYZZY": "1", "NOVACRON_DWCP_ENABLED": "maybe"})

    assert [(problem.kind.value, problem.key or problem.origin.name) for problem in problems] == [
        ("value", "api.port"),
        ("value", "system.logLevel"),
        ("unknown_key", "system.nothing"),
        ("reference", "system.dataDir"),
        ("rule", "dwcp.transport.minStreams"),
        ("value", "dwcp.enabled"),
        ("unknown_variable", "NOVACRON_XYZZY"),
    ]


def test_a_rule_is_not_reported_on_a_key_that_is_wrong_already(directory) -> None:
    """One mistake makes one problem."""
    directory.write(lab="dwcp: {transport: {minStreams: 300, maxStreams: many}}")

    assert directory.problem().key == "dwcp.transport.maxStreams"


def test_the_error_is_what_the_operator_reads(directory) -> None:
    """One line per problem: place, key, found, expected."""
    directory.write(lab="api:\n  port: 99999\n")

    with pytest.raises(Exception, match="1 problem\n") as caught:
        directory.load()

    assert str(caught.value) == (
        "the configuration is not valid: 1 problem\n"
        f"  {directory.path}/config.lab.yaml:2: api.port: found 99999, "
        "expected a whole number from 1 to 65535"
    )
    assert caught.value.code == "config.invalid"


def test_secrets_are_never_shown(directory) -> None:
    """Neither the record's text, nor its plain form, nor the values show a password."""
    directory.write(lab=f"database: {{redis: {{password: {SECRET}}}}}")

    loaded = directory.load({"NOVACRON_DATABASE_POSTGRES_PASSWORD": SECRET})

    assert SECRET not in repr(loaded)
    assert SECRET not in str(loaded.config.secrets_masked())
    assert loaded.values()["database.postgres.password"] == MASK
    assert loaded.secrets[:2] == ("database.postgres.password", "database.redis.password")


def test_notes_name_what_is_accepted_but_absent(directory) -> None:
    """Parts that this version lacks, a shared node name, and a literal secret are remarked on."""
    directory.write(
        lab=f"database: {{redis: {{password: {SECRET}}}}}\napi: {{cors: {{allowedOrigins: ['*']}}}}"
    )

    notes = {note.key: note.text for note in directory.load().notes}

    assert set(notes) == {
        "dwcp.prediction.enabled",
        "dwcp.consensus.enabled",
        "platform.nodeId",
        "api.cors.allowedOrigins",
        "database.redis.password",
    }
    assert SECRET not in str(notes)


def test_a_node_without_dwcp_gets_no_notes_about_it(directory) -> None:
    """What is off is not remarked on."""
    directory.write(lab="dwcp: {enabled: false}\nplatform: {nodeId: mine}")

    assert directory.load().notes == ()


def test_changes_names_the_keys_that_differ(directory) -> None:
    """A reload compares by key, secrets included, lists as a whole."""
    old = directory.load({"NOVACRON_DATABASE_POSTGRES_PASSWORD": "a"}).config
    environ = {
        "NOVACRON_DATABASE_POSTGRES_PASSWORD": "b",
        "NOVACRON_PLATFORM_ROLES": "backend",
        "NOVACRON_API_PORT": "8082",
    }

    new = directory.load(environ).config

    assert changes(old, old) == ()
    assert changes(old, new) == ("platform.roles", "database.postgres.password", "api.port")


WHOLE_KEYS = ("api.port", "database.redis.database", "security.audit.retentionDays")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(WHOLE_KEYS), st.integers(1, 15)), min_size=4, max_size=4
    )
)
def test_the_last_tier_that_says_anything_wins(directory, tiers: list[dict[str, int]]) -> None:
    """For any distribution of values over the four tiers the last one wins, key by key."""
    default, lab, variables, flags = tiers
    directory.write(default=_yaml(default), lab=_yaml(lab))
    environ = {key_table().keys[key].variable: str(value) for key, value in variables.items()}

    values = directory.load(environ, flags).values()

    defaults = {key: key_table().keys[key].default for key in WHOLE_KEYS}
    expected = defaults | default | lab | variables | flags
    assert {key: values[key] for key in WHOLE_KEYS} == expected


def _yaml(values: dict[str, int]) -> str:
    lines: list[str] = []
    for key, value in values.items():
        names = key.split(".")
        lines += [f"{'  ' * depth}{name}:" for depth, name in enumerate(names)]
        lines[-1] += f" {value}"
    return "\n".join(lines) or "{}"


def test_a_config_can_be_made_in_code() -> None:
    """The built-in values are a configuration of their own."""
    assert Config().dwcp.transport.max_streams == 256


def test_this_machine_is_looked_at_when_nobody_says_what_it_has(directory) -> None:
    """Without facts the host's own are read."""
    assert load(directory.path, "lab", {}).config.environment == "lab"


@pytest.mark.parametrize(
    ("redis", "is_noted"),
    [
        ("{host: cache.example}", True),
        ("{host: cache.example, tls: {enabled: true}}", False),
        ("{host: localhost}", False),
        ("{host: 127.0.0.1}", False),
    ],
)
def test_redis_in_the_clear_over_a_network_is_noted(directory, redis: str, is_noted: bool) -> None:
    """Not on this host, where nobody listens in between, and not with TLS."""
    directory.write(lab=f"database: {{redis: {redis}}}")

    notes = {note.key: note.text for note in directory.load().notes}

    assert ("database.redis.tls.enabled" in notes) is is_noted
