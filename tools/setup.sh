#!/bin/sh
# Installs the system packages that Taskpress is built from. usage: tools/setup.sh [--all]
#
# Debian 13 (trixie) has all of them. On Debian 12 (bookworm) the trixie suite is added at priority 100: apt then takes from it only what is
# asked for here, and everything else stays bookworm's. The mirror is the one the machine already uses.
# Run it as often as you like: when nothing is missing it looks, says so and touches neither apt nor the network.
# The functions are tested by tests/workshop/setup_test.sh, which sources this file.
set -eu
# Lists of packages are split at blanks on purpose: one argument each.
# shellcheck disable=SC2046,SC2086

os_release=${TASKPRESS_OS_RELEASE:-/etc/os-release}
apt_dir=${TASKPRESS_APT_DIR:-/etc/apt}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# package [minimum version]: a minimum stands where bookworm's package is too old for the interfaces we use.
packages() {
  cat <<'END'
g++-14
cmake 3.25
ninja-build
pkg-config
ccache
flatbuffers-compiler 23.5
libflatbuffers-dev 23.5
protobuf-compiler
libprotobuf-dev
libtbb-dev 2022
libzstd-dev
libgtest-dev 1.15
libgmock-dev 1.15
libsentencepiece-dev 0.2
libonnx-dev 1.17
libhwy-dev 1.2
libxnnpack-dev 0.0~git2024
libpthreadpool-dev 0.0~git2024
libcpuinfo-dev 0.0~git2024
libcli11-dev 2.4
nlohmann-json3-dev
libssl-dev
zlib1g-dev
libre2-dev 2024
libtomlplusplus-dev 3.3
libbenchmark-dev
clang-format-19
END
}

# For the presets tidy and fuzz (--all).
clang_packages() {
  cat <<'END'
clang-19
clang-tidy-19
libclang-rt-19-dev
END
}

# Python makes the virtual environment of the interoperability tests. Any python3 that can do so will serve, a pyenv one too.
python_packages() {
  cat <<'END'
python3
python3-venv
END
}

# clang-tidy-19 depends on it. Trixie's would replace the Python of a bookworm machine under everything that uses it.
clang_python_packages() { echo python3-yaml; }

say() { echo "setup: $*" >&2; }
fail() {
  say "$@"
  exit 1
}
usage() {
  echo "usage: tools/setup.sh [--all]   (--all: also what the presets tidy and fuzz need)" >&2
  exit "$1"
}

# stdin: "package [minimum]" lines; stdout: the packages that are absent or too old.
missing_packages() {
  wanted=$(cat)
  [ -n "$wanted" ] || return 0
  # dpkg-query fails when a package is unknown; the lines of the known ones are what counts.
  installed=$(dpkg-query --show --showformat '${Package} ${db:Status-Status} ${Version}\n' $(echo "$wanted" | cut -d' ' -f1) 2>/dev/null) || true
  echo "$wanted" | while read -r package minimum; do
    version=$(echo "$installed" | awk -v package="$package" '$1 == package && $2 == "installed" { print $3; exit }')
    if [ -z "$version" ]; then
      echo "$package"
    elif [ -n "$minimum" ] && ! dpkg --compare-versions "$version" ge "$minimum"; then
      echo "$package"
    fi
  done
}

python_makes_venvs() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

# "uri suite component..." for every binary archive that apt is configured with, in both of its spellings (sources.list(5)).
apt_sources() {
  for file in "$apt_dir"/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    awk '
      function finish_stanza(   uri, suite, i, j, uris, suites) {
        if (field["types"] ~ /(^|[ \t])deb([ \t]|$)/ && tolower(field["enabled"]) !~ /^[ \t]*(no|false|off|without|disable|0)[ \t]*$/) {
          uris = split(field["uris"], uri)
          suites = split(field["suites"], suite)
          for (i = 1; i <= uris; i++)
            for (j = 1; j <= suites; j++) print uri[i], suite[j], field["components"]
        }
        split("", field)
      }
      /^#/ { next }
      /^[ \t]*$/ { finish_stanza(); next }
      /^[ \t]/ { field[name] = field[name] " " $0; next }
      { name = tolower(substr($0, 1, index($0, ":") - 1)); field[name] = substr($0, index($0, ":") + 1) }
      END { finish_stanza() }
    ' "$file"
  done
  for file in "$apt_dir"/sources.list "$apt_dir"/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    # deb [option=value ...] uri suite component ...
    sed -n -e 's/#.*//' -e 's/^[[:space:]]*deb[[:space:]][[:space:]]*//p' "$file" | sed -e 's/^\[[^]]*\][[:space:]]*//'
  done
}

# The URIs that serve a suite of Debian's shape: third parties name their suites after releases too, but rarely have a component main.
archives_of() { apt_sources | awk -v suite="$1" '$2 == suite { for (i = 3; i <= NF; i++) if ($i == "main") { print $1; break } }'; }

has_suite() { [ -n "$(archives_of "$1")" ]; }

# The archive that bookworm itself comes from; security and updates are suites of other names. Debian's mirrors end in /debian by custom, and
# a CD holds no trixie.
bookworm_mirror() {
  archives_of bookworm | awk '/^cdrom:/ { next } /\/debian\/?$/ { found = $1; exit } !found { found = $1 } END { print found }'
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "installing needs root: run this script as root or install sudo. Missing: $(echo $missing $python_missing)"
  fi
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null >&2
}

# The lock of the package lists has no timeout of its own, so a failure is tried again here. A third party's archive being away must not stop
# us: whether our packages can be had, the installation will tell.
update_lists() {
  apt_get update && return
  for pause in 5 20; do
    sleep "$pause"
    apt_get update && return
  done
  say "apt-get update failed; going on with the package lists as they are"
}

install_packages() { apt_get install --yes --no-install-recommends "$@"; }

write_root_file() { as_root tee "$1" >/dev/null; }

add_trixie() {
  mirror=$(bookworm_mirror)
  [ -n "$mirror" ] || fail "no archive with the suite bookworm under $apt_dir; add the suite trixie to apt's sources and run this again"
  say "adding the suite trixie from $mirror at priority 100"
  # The pin goes first: a trixie without it, should we be interrupted, would upgrade the whole machine.
  write_root_file "$apt_dir/preferences.d/taskpress-trixie" <<END
Package: *
Pin: release n=trixie
Pin-Priority: 100
END
  write_root_file "$apt_dir/sources.list.d/taskpress-trixie.sources" <<END
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: $keyring
END
}

refuse_system() {
  fail "this system is not Debian 12 or 13. Install its equivalents of these packages (minimum version):" \
    "$( (packages; clang_packages; python_packages) | sed 's/ \(.*\)/ (\1)/' | paste -s -d, - | sed 's/,/, /g')"
}

# Sets `target`: the apt options that make our packages available. The sources decide before os-release does: on a bookworm machine that has
# taken packages from trixie, base-files may be one of them, and os-release then says 13.
choose_release() {
  # shellcheck source=/dev/null
  system=$([ -r "$os_release" ] && . "$os_release" && echo "${ID:-} ${VERSION_ID:-}") || system=unknown
  target=
  case $system in
    "debian 12" | "debian 13") ;;
    *) refuse_system ;;
  esac
  if [ "$system" = "debian 12" ] || has_suite bookworm; then
    target="--target-release trixie"
    has_suite trixie || add_trixie
  fi
}

main() {
  wanted=$(packages)
  python_wanted=
  python_makes_venvs || python_wanted=$(python_packages)
  while [ $# -gt 0 ]; do
    case $1 in
      --all)
        wanted=$(packages; clang_packages)
        python_wanted="$python_wanted $(clang_python_packages)"
        ;;
      --help) usage 0 ;;
      *) usage 2 ;;
    esac
    shift
  done
  if ! command -v dpkg-query >/dev/null; then refuse_system; fi

  missing=$(echo "$wanted" | missing_packages)
  python_missing=$(echo $python_wanted | tr ' ' '\n' | missing_packages)
  if [ -z "$missing$python_missing" ]; then
    say "all packages are installed"
    exit 0
  fi

  choose_release
  update_lists
  if [ -n "$python_missing" ]; then
    # The machine's own release first; where its Python has come from trixie already, that one's packages fit.
    install_packages $python_missing || install_packages $target $python_missing
  fi
  [ -z "$missing" ] || install_packages $target $missing
  say "done"
}

# Sourced by its test, the file only defines its functions.
case $0 in
  *setup.sh) main "$@" ;;
esac
