#!/bin/sh
# Every C++ file looks as .clang-format says. usage: format_test.sh [CLANG_FORMAT]
# To mend: git ls-files '*.h' '*.cc' | xargs clang-format-19 -i
set -eu
clang_format=${1:-clang-format-19}
cd "$(dirname "$0")/../.."

# First the proof that a badly formatted line is seen at all.
if echo 'int  main( ){return 0 ;}' | "$clang_format" --dry-run -Werror --assume-filename=planted.cc 2>/dev/null; then
  echo "$clang_format accepts a badly formatted line: is .clang-format read?"
  exit 1
fi

git -c safe.directory='*' ls-files -z '*.h' '*.cc' | xargs -0 "$clang_format" --dry-run -Werror
echo "every C++ file is formatted"
