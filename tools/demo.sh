#!/bin/sh
# The whole way once, on the small checkpoint of the tests: convert, look inside, continue a text, measure. usage: tools/demo.sh
# Every taskpress command is printed as it is run. Results stay in out/.
set -eu
cd "$(dirname "$0")/.."

# run ARGUMENT...: prints the command so that it can be pasted into a shell, then runs it.
run() {
  line="+ taskpress"
  for argument; do
    case $argument in
      *[!A-Za-z0-9_./=:,-]*) line="$line '$(printf %s "$argument" | sed "s/'/'\\\\''/g")'" ;;
      *) line="$line $argument" ;;
    esac
  done
  printf '\n%s\n' "$line"
  build/release/tools/taskpress "$@"
}

sh tools/setup.sh
mkdir -p build out
echo "building the release preset; its log is build/demo.log"
{ cmake --preset release && cmake --build --preset release --target taskpress; } >build/demo.log 2>&1 </dev/null || {
  cat build/demo.log
  exit 1
}

run convert tests/data/micro-e4b -o out/micro.task -o out/micro.litertlm --force --context 512 --score-signature
run inspect out/micro.task
run run out/micro.task -p "And it came to pass in those days, that the king" -n 48
run compare out/micro.task tests/data/micro-e4b --text tests/data/kjv-sample.txt
run bench out/micro.task -p 256 -n 64
