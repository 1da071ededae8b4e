#!/bin/sh
# What must not be in the tree: paths and hosts of one person's machine, unfinished or switched-off work, sources that nothing builds.
# usage: clean_tree_test.sh [ROOT]   Files about to be committed count too; ignored ones do not.
# Before it judges the project it proves on a planted tree that it would see each of them.
# The patterns are written so that this file does not match them.
set -eu
root=$(cd "${1:-$(dirname "$0")/../..}" && pwd)

machine_paths='(^|[^[:alnum:]_.~-])/(work|home|root|farm)/|[.][.]/shared([^[:alnum:]_]|$)'
registry_hosts='(deb|security|snapshot|ftp)[.]debian[.]org|pypi[.]org|pythonhosted[.]org|registry[.](npmjs[.]org|yarnpkg[.]com)|proxy[.]golang[.]org|crates[.]io|repo[.]maven|hub[.]docker[.]com'
unfinished='(^|[^[:alnum:]_])(TO[D]O|FIX[M]E)([^[:alnum:]_]|$)|GTEST_SK[I]P|(^|[^[:alnum:]_])DISABL[E]D_'

# The tree may belong to somebody else (a CI checkout in a container); reading it is safe all the same.
git_in() {
  directory=$1
  shift
  git -C "$directory" -c safe.directory='*' "$@"
}

# search ROOT WHAT PATTERN PATHSPEC...: the lines that match, each with what is wrong about it.
search() {
  tree=$1 what=$2 pattern=$3
  shift 3
  git_in "$tree" grep --untracked -nIE "$pattern" -- "$@" | cut -c1-200 | sed "s/^/$what: /"
}

# The sources that no CMakeLists.txt beside or above them lists. A wire format may be listed without its ending, and so
# may a fuzz target: taskpress_fuzz(name).
orphans() {
  git_in "$1" ls-files --cached --others --exclude-standard -- '*.cc' '*.proto' '*.fbs' | while read -r file; do
    [ -e "$1/$file" ] || continue  # deleted, not yet committed
    folder=$file
    listed=no
    while [ "$listed" = no ] && [ "$folder" != . ]; do
      folder=$(dirname "$folder")
      name=$(echo "${file#"$folder"/}" | sed -e 's/^\(.*_fuzz\)[.]cc$/(\1[.]cc|taskpress_fuzz[(]\1)/' -e 's/[.]cc$/[.]cc/' -e 's/[.]\(proto\|fbs\)$/([.]\1)?/')
      ! grep -qE "(^|[[:space:](\"]|[}]/)$name([[:space:])\"]|$)" "$1/$folder/CMakeLists.txt" 2>/dev/null || listed=yes
    done
    [ "$listed" = yes ] || echo "no CMakeLists.txt builds it: $file"
  done
}

# tests/data holds texts of others (documentation, vocabularies), where a path is a word like any other.
violations() {
  search "$1" "path of a machine" "$machine_paths" . ':!tests/data' || true
  search "$1" "host of a package registry" "$registry_hosts" . ':!tests/data' || true
  search "$1" "unfinished or switched off" "$unfinished" '*.cc' '*.h' '*.def' '*.py' '*.sh' '*.cmake' '*CMakeLists.txt' || true
  orphans "$1"
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
failures=0
git_in "$planted" init --quiet

# plant good|bad FILE LINE: a tree of this one line must be found clean, or not.
plant() {
  rm -rf "${planted:?}"/*
  mkdir -p "$planted/$(dirname "$2")" "$planted/schema" "$planted/tests/data"
  echo 'taskpress_room(schema SOURCES base/listed.cc ${CMAKE_CURRENT_SOURCE_DIR}/listed.proto also_listed.cc) wire(by_stem) taskpress_fuzz(json_fuzz LINKS x)' >"$planted/schema/CMakeLists.txt"
  echo "$3" >"$planted/$2"
  found=$(violations "$planted")
  case $1 in
    good) [ -z "$found" ] || { echo "a good line was refused: $2: $3: $found"; failures=1; } ;;
    bad) [ -n "$found" ] || { echo "a bad line was not seen: $2: $3"; failures=1; } ;;
  esac
}

plant good schema/base/listed.cc '// fine'
plant good schema/also_listed.cc 'constexpr int kTodoList = 1;'
plant good schema/base/listed.cc '#define HWY_DISABL''ED_TARGETS HWY_SVE'
plant good schema/listed.proto 'syntax = "proto3";'
plant good schema/json_fuzz.cc '// a fuzz target'
plant good schema/by_stem.fbs 'table A {}'
plant good README.md 'see https://example.org/home/page and share/work/'
plant good tests/data/text.txt "files under /ho""me/user"
plant bad schema/orphan.cc '// nobody builds me'
plant bad schema/listed.cc '// base/listed.cc is another file'
plant bad schema/orphan.proto 'syntax = "proto3";'
plant bad schema/task_fuzz.cc '// a fuzz target that is not listed'
plant bad schema/by_stem.cc '// only the wire format of this name is listed'
plant bad README.md "run /wo""rk/main/tools"
plant bad tools/a.sh "cd /ho""me/me"
plant bad tools/a.sh "cp ..""/shared/x ."
plant bad README.md "https://py""pi.org/simple"
plant bad tools/a.sh "deb http://deb"".debian.org/debian"
plant bad schema/base/listed.cc "// TO""DO: more"
plant bad schema/base/listed.cc "TEST(A, DISABL""ED_B) {}"
plant bad tests/a.py "# FIX""ME"

found=$(violations "$root")
if [ -n "$found" ]; then
  echo "$found"
  failures=1
fi
[ "$failures" = 0 ] && echo "the tree is clean"
exit "$failures"
