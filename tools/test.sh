#!/bin/sh
# Builds everything and runs every test. usage: tools/test.sh [--quick]
#   --quick   only the developer build (ASan, UBSan) and its tests, without the clients of others
# The two passes: dev under the sanitizers, then release with the interoperability tests (label interop), which need the real clients in a
# virtual environment, and the tests on a real model (label real), which is downloaded (253 MB) into build/real. The first failure ends it; ctest's summary is the last thing printed.
# JOBS=n sets how many compilers and tests run at once (default: one per core).
set -eu
cd "$(dirname "$0")/.."

quick=no
case ${1:-} in
  '') ;;
  --quick) quick=yes ;;
  *)
    echo "usage: tools/test.sh [--quick]" >&2
    [ "$1" = --help ] && exit 0
    exit 2
    ;;
esac
jobs=${JOBS:-$(nproc)}
started=$(date +%s)

stage() { echo "== $(($(date +%s) - started)) s: $*"; }

# build PRESET [cmake option...]
build() {
  stage "configure and build: $*"
  preset=$1
  log=build/configure-$preset.log
  cmake --preset "$@" >"$log" 2>&1 || {
    cat "$log"
    exit 1
  }
  cmake --build --preset "$preset" --parallel "$jobs"
}

# run_tests PRESET [ctest option...]
run_tests() {
  stage "test: $*"
  preset=$1
  shift
  ctest --preset "$preset" --parallel "$jobs" --no-tests=error "$@"
}

exec </dev/null
mkdir -p build

stage "system packages"
sh tools/setup.sh
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
  export CCACHE_DIR="${CCACHE_DIR:-$PWD/build/ccache}"
fi

build dev
if [ "$quick" = no ]; then
  stage "clients for the interoperability tests"
  sh tests/interop/setup_clients.sh build/clients-venv
  stage "a real model"
  model=$(sh tests/real/fetch_model.sh build/real)
  build release -D TASKPRESS_CLIENTS_VENV="$PWD/build/clients-venv" -D TASKPRESS_REAL_MODEL="$PWD/$model"
fi

run_tests dev --label-exclude interop
if [ "$quick" = no ]; then
  run_tests release
fi
