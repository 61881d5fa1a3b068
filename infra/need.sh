#!/bin/sh
# Sees to it that the named programs are there: postgres (server binaries), node (20 or newer, with npm), and, built
# from their sources into .tools/bin at pinned versions, minio and versitygw.
# Installs what is missing with apt-get where it may; else says what to install, and fails.
set -eu

tools=$(cd "$(dirname "$0")/.." && pwd)/.tools/bin

# build NAME PACKAGE VERSION
build() {
  [ -x "$tools/$1" ] && [ "$(cat "$tools/$1.version" 2>/dev/null)" = "$3" ] && return 0
  echo "building $1 $3 (once; this takes some minutes)" >&2
  mkdir -p "$tools"
  CGO_ENABLED=0 GOFLAGS=-mod=mod GOBIN="$tools" go install "$2@$3" && echo "$3" >"$tools/$1.version"
}

has_postgres() {
  command -v initdb >/dev/null 2>&1 && return 0
  for dir in /usr/lib/postgresql/*/bin /usr/local/pgsql/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
    [ -x "$dir/initdb" ] && return 0
  done
  return 1
}

has_node() {
  command -v npm >/dev/null 2>&1 && [ "$(node -p 'parseInt(process.versions.node)' 2>/dev/null || echo 0)" -ge 20 ]
}

install() {
  if ! command -v apt-get >/dev/null 2>&1; then return 1; fi
  if [ "$(id -u)" = 0 ]; then sudo=; elif command -v sudo >/dev/null 2>&1; then sudo=sudo; else return 1; fi
  $sudo apt-get update -qq
  # The package's own cluster is not wanted: we start ours, and only while we need it.
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

for need in "$@"; do
  case $need in
    postgres)
      has_postgres || install postgresql || true
      has_postgres || { echo "no Postgres server found: install one (Debian: apt-get install postgresql; macOS: brew install postgresql)" >&2; exit 1; } ;;
    node)
      has_node || install nodejs npm || true
      has_node || { echo "Node 20 or newer with npm is needed: install it from your system's packages" >&2; exit 1; } ;;
    minio)
      build minio github.com/minio/minio v0.0.0-20260212201848-7aac2a2c5b7c ||
        { echo "MinIO could not be built: see above" >&2; exit 1; } ;;
    versitygw)
      build versitygw github.com/versity/versitygw/cmd/versitygw v1.8.0 ||
        { echo "VersityGW could not be built: see above" >&2; exit 1; } ;;
    *) echo "need.sh: unknown program $need" >&2; exit 2 ;;
  esac
done
