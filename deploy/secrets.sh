#!/bin/sh
# Makes the secrets that compose.yaml reads, once, in deploy/secrets. Only their owner can enter the directory; the files
# in it are readable, because the containers' user is another one.
set -eu
cd "$(dirname "$0")"
umask 022
mkdir -p secrets
chmod 700 secrets
random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
[ -e secrets/auth ] || random >secrets/auth
[ -e secrets/admin ] || random >secrets/admin
[ -e secrets/postgres ] || random >secrets/postgres
# The URL has the password in it, so it is a settings file and no environment variable.
[ -e secrets/history.yaml ] || printf 'history:\n  database: postgres://runnel:%s@postgres/runnel\n' "$(cat secrets/postgres)" >secrets/history.yaml
echo "the secrets are in $PWD/secrets"
