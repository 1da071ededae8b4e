#!/bin/sh
# The arrows of the house: an include or a link goes down, never up or sideways. usage: layering_test.sh [ROOT]
# Before it judges the project it proves on a planted tree that it would see each kind of bad include.
set -eu
root=$(cd "${1:-$(dirname "$0")/../..}" && pwd)
rooms="schema quantizer runtime converter tools"

# violations ROOT: one line per include or link that breaks a rule.
violations() {
  (
    cd "$1"
    find $rooms tests -type f \( -name '*.h' -o -name '*.cc' -o -name '*.def' -o -name CMakeLists.txt \) -not -path 'tests/data/*' 2>/dev/null |
      sort | while read -r file; do
      # A name that a file beside this one answers to is an include relative to it.
      grep -n '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$file" | sed 's/^\([0-9]*\):[^"]*"\([^"]*\)".*/\1 \2/' |
        while read -r line name; do
          [ ! -e "$(dirname "$file")/$name" ] || echo "$file:$line: \"$name\" is not written from the project root"
        done
      awk -v file="$file" '
        BEGIN {
          allowed["schema/base"] = "schema/base"
          allowed["schema"] = "schema/base schema"
          allowed["quantizer"] = allowed["schema"] " quantizer"
          allowed["runtime"] = allowed["schema"] " runtime"
          allowed["converter"] = allowed["schema"] " quantizer runtime converter"
          allowed["tools"] = allowed["converter"] " tools"
          allowed["tests/reference"] = allowed["schema"] " tests tests/reference"  # the oracle shares no code with what it judges
          allowed["tests"] = allowed["tools"] " tests tests/reference"
          from = room_of(file)
        }
        function room_of(path,   part) {
          split(path, part, "/")
          return part[1] "/" part[2] in allowed ? part[1] "/" part[2] : part[1]
        }
        function judge(to, what) {
          if (to in allowed && index(" " allowed[from] " ", " " to " ") == 0)
            print file ":" FNR ": " from " may use " allowed[from] ", not " to ": " what
        }
        file !~ /CMakeLists.txt$/ && /^[ \t]*#[ \t]*include[ \t]*["<]/ {
          name = $0
          sub(/^[^"<]*["<]/, "", name)
          sub(/[">].*/, "", name)
          judge(room_of(name), name)
          if (name == "xnnpack.h" && file !~ /^runtime\/xnnpack_[^\/]*$/) print file ":" FNR ": only runtime/xnnpack_* includes xnnpack.h"
        }
        file ~ /CMakeLists.txt$/ && !/^[ \t]*#/ {
          rest = $0
          while (match(rest, /taskpress_[a-z]+/)) {
            judge(substr(rest, RSTART + 10, RLENGTH - 10), substr(rest, RSTART, RLENGTH))
            rest = substr(rest, RSTART + RLENGTH)
          }
        }
      ' "$file"
    done
  )
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
failures=0

# plant good|bad FILE LINE: a tree of this one line must be found clean, or not.
plant() {
  rm -rf "${planted:?}"/*
  mkdir -p "$planted/$(dirname "$2")" "$planted/runtime"
  printf '// first line\n' >"$planted/runtime/neighbour.h"
  printf '%s\n' "$3" >"$planted/$2"
  found=$(violations "$planted")
  case $1 in
    good) [ -z "$found" ] || { echo "a good line was refused: $2: $3: $found"; failures=1; } ;;
    bad) [ -n "$found" ] || { echo "a bad line was not seen: $2: $3"; failures=1; } ;;
  esac
}

plant good tools/run.cc '#include "converter/convert.h"'
plant good converter/convert.cc '#include "runtime/session.h"'
plant good converter/convert.cc '#include "quantizer/recipe.h"'
plant good quantizer/recipe.cc '#include "schema/json.h"'
plant good runtime/xnnpack_operator.cc '#include <xnnpack.h>'
plant good runtime/session.cc '#include "runtime/neighbour.h"'
plant good quantizer/rows.cc '#include "hwy/highway.h"'
plant good tests/tools/run_test.cc '#include "tools/run.h"'
plant good tests/reference/model.cc '#include "schema/shape.h"'
plant good converter/CMakeLists.txt '  LINKS taskpress_schema taskpress_quantizer taskpress_runtime)'
plant bad schema/json.cc '#include "quantizer/recipe.h"'
plant bad schema/base/hash.cc '#include "schema/json.h"'
plant bad quantizer/recipe.cc '#include "runtime/session.h"'
plant bad runtime/session.cc '#include "quantizer/recipe.h"'
plant bad runtime/session.cc '  #  include <converter/convert.h>  // why not'
plant bad converter/blocks/altup.h '#include "tools/run.h"'
plant bad tools/run.cc '#include "tests/testing/files.h"'
plant bad tests/reference/model.cc '#include "runtime/session.h"'
plant bad runtime/session.cc '#include <xnnpack.h>'
plant bad tools/xnnpack_run.cc '#include <xnnpack.h>'
plant bad runtime/session.cc '#include "neighbour.h"'
plant bad runtime/kernels/add.cc '#include "../neighbour.h"'
plant bad quantizer/CMakeLists.txt '  LINKS taskpress_schema taskpress_runtime)'

found=$(violations "$root")
if [ -n "$found" ]; then
  echo "$found"
  failures=1
fi
[ "$failures" = 0 ] && echo "every include and link goes the way of the arrows"
exit "$failures"
