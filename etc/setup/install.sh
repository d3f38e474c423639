#!/bin/sh
# Prepares this checkout on Debian 12: packages, accounts, Python environment.
# Does only what is missing, so it may be run as often as one likes.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

say() { printf '%s\n' "setup: $*" >&2; }

missing_packages() {
    for package in $(grep -v '^#' etc/setup/debian-packages.txt); do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            printf '%s ' "$package"
    done
}

install_packages() {
    packages=$(missing_packages)
    [ -n "$packages" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "these Debian packages are missing, and only root may install them:"
        say "  apt-get install $packages"
        exit 1
    fi
    say "installing Debian packages: $packages"
    # The node runs its own servers; the distribution's must not start and take their ports.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086  # a list of words
    apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold $packages
}

# The group novacron is the operators' group: its members command the node. The user novacron may
# run a node without root. PostgreSQL and Redis of a node that root runs are novacron-data, which
# is in no other group, so that a server that was broken into has no way to the control socket.
make_accounts() {
    [ "$(id -u)" = 0 ] || return 0
    make_account novacron
    make_account novacron-data
}

make_account() {
    if ! getent group "$1" >/dev/null; then
        say "creating the system group $1"
        groupadd --system "$1"
    fi
    if ! getent passwd "$1" >/dev/null; then
        say "creating the system account $1"
        useradd --system --gid "$1" --home-dir /var/lib/novacron --no-create-home \
            --shell /usr/sbin/nologin "$1"
    fi
}

make_environment() {
    sum=$(sha256sum etc/setup/requirements.txt | cut -d' ' -f1)
    if [ "$(cat .venv/.requirements 2>/dev/null)" != "$sum $root" ]; then
        say "installing Python packages into .venv"
        [ -x .venv/bin/python3 ] || /usr/bin/python3.11 -m venv .venv
        .venv/bin/python3 -m pip install --quiet --disable-pip-version-check \
            --requirement etc/setup/requirements.txt
        # The checkout itself is on the path of its environment; nothing is copied.
        echo "$root" >.venv/lib/python3.11/site-packages/novacron.pth
        .venv/bin/python3 -m compileall -q .venv/lib/python3.11/site-packages || true
        echo "$sum $root" >.venv/.requirements
    fi
    .venv/bin/python3 -m compileall -q protocol supervisor services
}

install_packages
make_accounts
make_environment
