#!/bin/sh
# Makes the virtual environment with the clients that read our bundles: LiteRT-LM and ai-edge-litert, pinned (about 300 MB).
#   usage: setup_clients.sh VENV [python3]
# Returns at once when the pinned set is already there. Then: cmake --preset release -D TASKPRESS_CLIENTS_VENV=VENV
set -eu
venv=${1:?usage: setup_clients.sh VENV [python3]}
python=${2:-python3}
here=$(cd "$(dirname "$0")" && pwd)
stamp="$venv/clients-$(cksum <"$here/requirements.txt" | cut -d' ' -f1).installed"
[ ! -e "$stamp" ] || exit 0
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# --no-deps: the list is complete, and nothing beyond it may slip in.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
"$venv/bin/python" -c 'import ai_edge_litert.compiled_model, ai_edge_litert.interpreter, litert_lm, litert_lm_builder, numpy, sentencepiece'
rm -f "$venv"/clients-*.installed
: >"$stamp"
