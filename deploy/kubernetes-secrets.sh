#!/bin/sh
# Prints the Secrets that the Helm chart wants with its default values, for `kubectl apply -f -`, made of what
# services/e2e/cmd/certs wrote and of the URL of PostgreSQL. Once: run again, it draws another admin token and another
# secret for tokens. In production certificates come from cert-manager or your own authority, under the same names.
#
#   go run ./services/e2e/cmd/certs --dir keys --host runnel-nats --host '*.runnel-nats' --host chat.example.com
#   DATABASE_URL=postgres://runnel:…@postgres.example.com/runnel?sslmode=verify-full \
#     deploy/kubernetes-secrets.sh keys | kubectl apply --namespace runnel -f -
set -eu
keys=${1:?the directory that services/e2e/cmd/certs wrote to}
: "${DATABASE_URL:?the URL of PostgreSQL}"

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
encode() { base64 | tr -d '\n'; }
# secret NAME TYPE begins a Secret; entry KEY adds what comes in to it.
secret() { printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ntype: %s\ndata:\n' "$1" "$2"; }
entry() { printf '  %s: %s\n' "$1" "$(encode)"; }

certificate() {
	secret "$2" kubernetes.io/tls
	entry tls.crt <"$keys/$1/cert.pem"
	entry tls.key <"$keys/$1/key.pem"
	entry ca.crt <"$keys/$1/ca.pem"
}

for role in gateway delivery history admin; do
	certificate "$role" "runnel-$role-tls"
done
certificate nats runnel-nats-tls
certificate clients chat-example-com-tls

secret runnel-nats-users Opaque
sed -n 's/^GATEWAY_NKEY=//p' "$keys/nats.env" | tr -d '\n' | entry gateway
sed -n 's/^DELIVERY_NKEY=//p' "$keys/nats.env" | tr -d '\n' | entry delivery
for role in gateway delivery; do
	secret "runnel-nats-$role" Opaque
	entry seed <"$keys/$role/nkey.seed"
done

secret runnel-admin Opaque
random | entry token
secret runnel-auth Opaque
random | entry hmac-secret
secret runnel-database Opaque
printf %s "$DATABASE_URL" | entry url
