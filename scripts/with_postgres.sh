#!/usr/bin/env bash
# Run a command with a throw-away PostgreSQL where one is installed, so that the store's one suite
# runs against both databases. Without a server the command runs as it is and those tests skip.
set -euo pipefail
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)
if [ -n "${IHDS_TEST_POSTGRES:-}" ] || [ -z "$bin" ]; then
  exec "$@"
fi
folder=$(mktemp -d)
as=()
if [ "$(id -u)" = 0 ]; then  # the server refuses to run as root
  as=(runuser -u nobody --)
  chown nobody "$folder"
fi
stop() {
  "${as[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate -s stop >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap stop EXIT
cd /tmp
"${as[@]}" "$bin/initdb" -D "$folder/data" -U ihds -A trust -E UTF8 --no-sync >/dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${as[@]}" "$bin/pg_ctl" -D "$folder/data" -w -s -o "-p $port -k $folder -h 127.0.0.1" start >/dev/null
cd - >/dev/null
export IHDS_TEST_POSTGRES="postgresql://ihds@127.0.0.1:$port/postgres"
"$@"
