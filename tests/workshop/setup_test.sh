#!/bin/sh
# What tools/setup.sh would do on machines that are not this one: fake os-release, apt configuration, packages and commands.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

# --- the fake machine

mirror=http://mirror.example.org/debian
fake=$scratch/bin
log=$scratch/log         # one line per command that would change the machine
packages=$scratch/dpkg   # "package status version" lines
mkdir "$fake"
fake_command() {
  cat >"$fake/$1"
  chmod +x "$fake/$1"
}
fake_command apt-get <<'END'
#!/bin/sh
case " $* " in *"$FAKE_APT_FAILS_ON"*) exit 100 ;; esac
echo "apt-get $*" >>"$FAKE_LOG"
END
fake_command sudo <<'END'
#!/bin/sh
echo "sudo $1" >>"$FAKE_LOG"
exec "$@"
END
fake_command id <<'END'
#!/bin/sh
echo "$FAKE_UID"
END
fake_command python3 <<'END'
#!/bin/sh
exit "$FAKE_PYTHON_STATUS"
END
fake_command dpkg-query <<'END'
#!/bin/sh
cat "$FAKE_PACKAGES"
exit 1
END
fake_command sleep <<'END'
#!/bin/sh
END

# machine ID VERSION_ID: a new one, with nothing installed, root at the keyboard and a working python3.
machine() {
  rm -rf "$scratch/apt"
  mkdir -p "$scratch/apt/sources.list.d" "$scratch/apt/preferences.d"
  printf 'PRETTY_NAME="A system"\nID=%s\nVERSION_ID="%s"\n' "$1" "$2" >"$scratch/os-release"
  : >"$packages"
  uid=0
  python_status=0
  apt_fails_on=nothing
}

debian_sources() {
  cat >"$scratch/apt/sources.list.d/debian.sources" <<END
Types: deb
# a comment inside a stanza
URIs: $mirror
Suites: $1 $1-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example.org/debian-security
Suites: $1-security
Components: main
END
}

install_everything() {
  (. "$root/tools/setup.sh"; packages; clang_packages; python_packages; clang_python_packages) |
    while read -r package minimum; do echo "$package installed ${minimum:-1}"; done >"$packages"
}

run_setup() {
  : >"$log"
  status=0
  env PATH="$fake:$PATH" TASKPRESS_OS_RELEASE="$scratch/os-release" TASKPRESS_APT_DIR="$scratch/apt" FAKE_LOG="$log" FAKE_UID="$uid" \
    FAKE_PYTHON_STATUS="$python_status" FAKE_PACKAGES="$packages" FAKE_APT_FAILS_ON="$apt_fails_on" \
    sh "$root/tools/setup.sh" "$@" </dev/null >"$scratch/stdout" 2>"$scratch/stderr" || status=$?
}

# bookworm_mirror of the fake machine's configuration.
mirror_found() { (TASKPRESS_APT_DIR=$scratch/apt; . "$root/tools/setup.sh"; bookworm_mirror); }

# --- the checks

failed() {
  failures=$((failures + 1))
  echo "FAILED: $test: $*"
  sed 's/^/  did: /' "$log"
  sed 's/^/  said: /' "$scratch/stderr"
}
expect_status() { [ "$status" = "$1" ] || failed "exit status $status, expected $1"; }
expect_did() { grep -q -e "$1" "$log" || failed "expected a command like '$1'"; }
expect_did_not() { ! grep -q -e "$1" "$log" || failed "expected no command like '$1'"; }
expect_said() { grep -q -e "$1" "$scratch/stderr" || failed "expected the message '$1'"; }
expect_file() { grep -q -x -e "$2" "$scratch/apt/$1" 2>/dev/null || failed "expected the line '$2' in $1"; }
expect_no_file() { [ ! -e "$scratch/apt/$1" ] || failed "expected no $1"; }
expect_equal() { [ "$1" = "$2" ] || failed "got '$1', expected '$2'"; }

test="with everything installed it touches nothing"
machine debian 12
debian_sources bookworm
install_everything
run_setup --all
expect_status 0
expect_did_not .
expect_no_file sources.list.d/taskpress-trixie.sources

test="Debian 12 gets trixie from its own mirror, pinned low"
machine debian 12
debian_sources bookworm
run_setup
expect_status 0
expect_file sources.list.d/taskpress-trixie.sources "URIs: $mirror"
expect_file sources.list.d/taskpress-trixie.sources "Suites: trixie"
expect_file sources.list.d/taskpress-trixie.sources "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"
expect_file preferences.d/taskpress-trixie "Pin: release n=trixie"
expect_file preferences.d/taskpress-trixie "Pin-Priority: 100"
expect_did "update"
expect_did "install .*--target-release trixie g++-14 .*libxnnpack-dev"
expect_did "DPkg::Lock::Timeout=300 -o Acquire::Retries=3"
expect_did_not "clang-tidy-19"
expect_did_not "sudo"

test="a second run on Debian 12 finds its own entry and adds no other"
cp -R "$scratch/apt" "$scratch/apt-before"
run_setup
expect_status 0
expect_equal "$(diff -r "$scratch/apt-before" "$scratch/apt")" ""

test="Debian 12 with trixie configured by hand keeps that configuration"
machine debian 12
debian_sources bookworm
printf 'deb %s trixie main\n' "$mirror" >"$scratch/apt/sources.list.d/mine.list"
run_setup
expect_status 0
expect_no_file sources.list.d/taskpress-trixie.sources
expect_no_file preferences.d/taskpress-trixie
expect_did "--target-release trixie"

test="a bookworm machine whose base-files came from trixie is still a bookworm machine"
machine debian 13
debian_sources bookworm
run_setup
expect_status 0
expect_file sources.list.d/taskpress-trixie.sources "URIs: $mirror"
expect_did "--target-release trixie"

test="Debian 13 needs no other suite"
machine debian 13
debian_sources trixie
run_setup
expect_status 0
expect_no_file sources.list.d/taskpress-trixie.sources
expect_no_file preferences.d/taskpress-trixie
expect_did "install .* g++-14 "
expect_did_not "target-release"

test="only what is absent or too old is installed"
machine debian 13
debian_sources trixie
install_everything
sed -i -e '/^ninja-build /d' -e 's/^libhwy-dev .*/libhwy-dev installed 1.0.3-3/' -e 's/^ccache .*/ccache config-files 4.8/' "$packages"
run_setup
expect_status 0
expect_did "install --yes --no-install-recommends ninja-build ccache libhwy-dev$"

test="--all adds clang, and its Python dependency from the machine's own release first"
machine debian 12
debian_sources bookworm
run_setup --all
expect_status 0
expect_did "target-release trixie .*clang-19 clang-tidy-19 libclang-rt-19-dev"
expect_did "install --yes --no-install-recommends python3-yaml$"

test="a python3 without venv is mended from the machine's own release"
machine debian 12
debian_sources bookworm
python_status=1
run_setup
expect_status 0
expect_did "install --yes --no-install-recommends python3 python3-venv$"

test="where that does not fit, the venv comes from trixie"
apt_fails_on="--no-install-recommends python3"
run_setup
expect_status 0
expect_did "--target-release trixie python3 python3-venv$"

test="without root it goes through sudo"
machine debian 12
debian_sources bookworm
uid=1000
run_setup
expect_status 0
expect_did "^sudo tee"
expect_did "^sudo env"
expect_did "apt-get .*install"

test="a failing update is not the end, a failing installation is"
machine debian 13
debian_sources trixie
apt_fails_on=" update "
run_setup
expect_status 0
expect_did "install"
expect_said "update failed"
apt_fails_on=" install "
run_setup
expect_status 100

test="other systems are told the packages and left alone"
for system in "ubuntu 24.04" "fedora 41" "debian 11"; do
  machine $system
  debian_sources bookworm
  run_setup
  expect_status 1
  expect_said "libflatbuffers-dev (23.5), "
  expect_said "clang-tidy-19, "
  expect_did_not .
  expect_no_file sources.list.d/taskpress-trixie.sources
done

test="Debian 12 without a bookworm archive on the network is told what to add"
machine debian 12
echo "deb cdrom:[Debian_12]/ bookworm main" >"$scratch/apt/sources.list"
run_setup
expect_status 1
expect_said "add the suite trixie"
expect_did_not .

test="an unknown option is refused before anything happens"
machine debian 12
run_setup --everything
expect_status 2
expect_said "usage: "
expect_did_not .

: >"$log"
: >"$scratch/stderr"
test="the mirror is read from sources.list, options, comments and CDs notwithstanding"
machine debian 12
cat >"$scratch/apt/sources.list" <<END
# deb http://commented.example.org/debian bookworm main
deb cdrom:[Debian_12]/ bookworm main
deb-src http://source.example.org/debian bookworm main
deb http://security.example.org/debian-security bookworm-security main
  deb [ arch=amd64 signed-by=/a/key.gpg ] $mirror/ bookworm main contrib # here
END
expect_equal "$(mirror_found)" "$mirror/"

test="third parties who name their suite bookworm are not Debian"
machine debian 12
printf 'Types: deb\nURIs: http://%s\nSuites: bookworm\nComponents: %s\n\n' docker.example.org/linux/debian stable php.example.org/php/ main \
  >"$scratch/apt/sources.list.d/a.sources"
debian_sources bookworm
expect_equal "$(mirror_found)" "$mirror"

test="disabled, source-only and folded stanzas are read as apt reads them"
machine debian 12
cat >"$scratch/apt/sources.list.d/a.sources" <<END
Enabled: no
Types: deb
URIs: http://disabled.example.org/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example.org/debian
Suites: bookworm
Components: main

types: deb deb-src
uris:
 $mirror
suites:
 bookworm-backports
 bookworm
components: main non-free-firmware
END
expect_equal "$(mirror_found)" "$mirror"

test="a mirror of an unusual name is found too"
machine debian 12
printf 'deb http://packages.example.org/bookworm-snapshot bookworm main\n' >"$scratch/apt/sources.list"
expect_equal "$(mirror_found)" "http://packages.example.org/bookworm-snapshot"

[ "$failures" = 0 ] || { echo "$failures checks failed"; exit 1; }
echo "setup.sh behaves on every fake machine"
