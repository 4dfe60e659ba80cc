#!/bin/bash
# Builds a Rust toolchain for wasm32-wasip2 into PREFIX, from Debian's packages and the machine's own rustup toolchain.
#
#     debian-toolchain.sh PREFIX
#
# For machines where `rustup target add wasm32-wasip2` cannot be had. Installs nothing, changes no system file, needs no root:
# packages are fetched with a private apt state (signatures checked against Debian's archive keys) and unpacked into PREFIX.
#
#   compiler and std sources   rustc-web, the newest Rust that this Debian release carries, also as a security update
#   wasi-libc                  trixie's: older releases have none for wasm32-wasip2
#   linkers                    rust-lld and wasm-component-ld, which rustup's toolchain has for every host
#
# The std for wasm32-wasip2 is compiled from rust-web-src, since no package of the same version has it.
# PREFIX appears by one rename when all is done: a run that was interrupted leaves nothing that looks ready.
set -euo pipefail

fail() { printf 'debian-toolchain: %s\n' "$*" >&2; exit 1; }
say() { printf 'debian-toolchain: %s\n' "$*" >&2; }

[ $# -eq 1 ] || fail "usage: debian-toolchain.sh PREFIX"
mkdir -p "$(dirname "$1")"
PREFIX=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
WORK=$PREFIX.build
TARGET=wasm32-wasip2

for tool in apt-get apt-cache dpkg-deb tar cc cargo rustc; do
    command -v "$tool" >/dev/null || fail "$tool is not on PATH; this script needs Debian (12 or later) and a rustup toolchain"
done
. /etc/os-release
[ "${ID:-}" = debian ] || fail "this system is ${PRETTY_NAME:-unknown}, not Debian; use \`rustup target add $TARGET\` instead"

# rustup keeps the linkers beside its compiler; both must be there before anything is downloaded.
HOST=$(rustc -vV | sed -n 's/^host: //p')
LINKERS=$(rustc --print sysroot)/lib/rustlib/$HOST/bin
for linker in rust-lld wasm-component-ld; do
    [ -x "$LINKERS/$linker" ] || fail "$linker is not in $LINKERS; install Rust with rustup, whose toolchains carry it"
done

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$KEYRING" ] || fail "$KEYRING is missing; apt-get install debian-archive-keyring"

rm -rf "$WORK"
mkdir -p "$WORK"/apt/{lists/partial,cache/archives/partial,preferences.d} "$WORK/debs" "$WORK/prefix"
: >"$WORK/apt/status"

# The mirrors are those that the machine uses. --no-release-info answers also where no list was ever fetched.
suites=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u)
archive=$(awk -v r="$VERSION_CODENAME" '$2 == r && $3 == "main" { print $1; exit }' <<<"$suites")
security=$(awk -v r="$VERSION_CODENAME-security" '$2 == r && $3 == "main" { print $1; exit }' <<<"$suites")
[ -n "$archive" ] || fail "apt has no source for $VERSION_CODENAME main; add it to /etc/apt/sources.list"
{
    echo "deb [signed-by=$KEYRING] $archive $VERSION_CODENAME main"
    [ -z "$security" ] || echo "deb [signed-by=$KEYRING] $security $VERSION_CODENAME-security main"
    [ "$VERSION_CODENAME" = trixie ] || echo "deb [signed-by=$KEYRING] $archive trixie main"
} >"$WORK/apt/sources.list"
# Nothing but wasi-libc may come from another release: its programs would want another glibc.
if [ "$VERSION_CODENAME" != trixie ]; then
    printf 'Package: *\nPin: release n=trixie\nPin-Priority: -1\n\nPackage: wasi-libc\nPin: release n=trixie\nPin-Priority: 990\n' >"$WORK/apt/preferences"
fi
apt_options=(
    -o "Dir::State=$WORK/apt" -o "Dir::State::lists=$WORK/apt/lists" -o "Dir::State::status=$WORK/apt/status"
    -o "Dir::Cache=$WORK/apt/cache" -o "Dir::Etc::sourcelist=$WORK/apt/sources.list" -o "Dir::Etc::sourceparts=-"
    -o "Dir::Etc::preferences=$WORK/apt/preferences" -o "Dir::Etc::preferencesparts=$WORK/apt/preferences.d"
    -o "APT::Sandbox::User=$(id -un)" -o "Acquire::Retries=3" -o "Acquire::Languages=none"
    -o "APT::Update::Error-Mode=any" -c "$WORK/apt/no-hooks.conf"
)
# The system's own settings hold (a proxy, for one), but not what it does after its updates.
printf '#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n' >"$WORK/apt/no-hooks.conf"
say "reading Debian's package lists"
apt-get "${apt_options[@]}" -qq update >&2 ||
    fail "apt-get update failed (above); the machine needs its Debian mirror"

policy() { apt-cache "${apt_options[@]}" policy "$1" | sed -n 's/^  Candidate: //p'; }
depends() { apt-cache "${apt_options[@]}" depends --no-recommends --no-suggests "$1" | sed -n 's/^ *Depends: //p'; }
version=$(policy rustc-web)
case ${version:-none} in
    none | "(none)") fail "$VERSION_CODENAME has no package rustc-web; use \`rustup target add $TARGET\` instead" ;;
esac
# The compiler's library and its LLVM carry versions in their names: they are found through what depends on them.
std=$(depends libstd-rust-web-dev | grep -m1 -E '^libstd-rust-web-[0-9]') || fail "libstd-rust-web-dev does not name its library; Debian's packaging changed"
llvm=$(depends "$std" | grep -m1 -E '^libllvm[0-9]') || fail "$std does not name its LLVM; Debian's packaging changed"
packages=(rustc-web libstd-rust-web-dev "$std" "$llvm" rust-web-src wasi-libc)
say "fetching rustc-web $version and wasi-libc $(policy wasi-libc) (${packages[*]})"
(cd "$WORK/debs" && apt-get "${apt_options[@]}" -q download "${packages[@]}") >&2 ||
    fail "a package could not be fetched (above)"

say "unpacking"
P=$WORK/prefix
for deb in "$WORK"/debs/*.deb; do
    case $(basename "$deb") in
        # Of the sources only library/ and its lock file are used: a fifth of the package.
        rust-web-src_*) dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$P" --wildcards './usr/src/rustc-*/library/*' './usr/lib/rustlib/src/*' ;;
        wasi-libc_*) dpkg-deb -x "$deb" "$WORK/wasi-libc" ;;
        *) dpkg-deb -x "$deb" "$P" ;;
    esac
done
rm -rf "$P/usr/share"
mkdir -p "$P/bin" "$P/usr/lib/rustlib/$HOST/bin"
ln -s "$LINKERS/rust-lld" "$LINKERS/wasm-component-ld" "$P/usr/lib/rustlib/$HOST/bin/"
# The compiler's own libraries (LLVM) are beside it, not where the system's loader looks.
cat >"$P/bin/rustc" <<'WRAPPER'
#!/bin/sh
prefix=$(cd "$(dirname "$0")/.." && pwd)
for libs in "$prefix"/usr/lib/*-linux-gnu; do LD_LIBRARY_PATH=$libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; done
export LD_LIBRARY_PATH
exec "$prefix/usr/bin/rustc" "$@"
WRAPPER
chmod +x "$P/bin/rustc"
"$P/bin/rustc" --version >&2 || fail "Debian's compiler does not start; see the loader's message above"

libc=$WORK/wasi-libc/usr/lib/$TARGET
[ -f "$libc/libc.a" ] || fail "wasi-libc $(policy wasi-libc) has no $TARGET"
self=$P/usr/lib/rustlib/$TARGET/lib/self-contained
mkdir -p "$self"
cp "$libc"/{crt1-command.o,crt1-reactor.o,libc.a} "$self/"

say "compiling std for $TARGET (two to five minutes)"
mkdir -p "$WORK/std/src"
: >"$WORK/std/src/lib.rs"
printf '[package]\nname = "std-for-guests"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[profile.release]\nopt-level = "s"\ncodegen-units = 1\n' >"$WORK/std/Cargo.toml"
# Bitcode, since guests are linked with LTO. Paths are remapped: std's panic messages end up in every guest.
flags="-Cembed-bitcode=yes --remap-path-prefix=$WORK=/rust/build"
for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do flags="$flags --remap-path-prefix=$registry=/rust/crates"; done
for library in "$P/usr/lib/rustlib/src/rust/library" "$(cd "$P"/usr/src/rustc-*/library && pwd -P)"; do flags="$flags --remap-path-prefix=$library=/rust/library"; done
(
    cd "$WORK/std"
    unset CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTC CARGO_BUILD_RUSTC_WRAPPER RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
    RUSTC=$P/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags CARGO_TARGET_DIR=$WORK/target \
        cargo build --release -Z build-std=std,panic_abort --target "$TARGET" >&2
) || fail "std did not compile (above)"
cp "$WORK/target/$TARGET"/release/deps/*.rlib "$P/usr/lib/rustlib/$TARGET/lib/"
rm -f "$P/usr/lib/rustlib/$TARGET/lib"/libstd_for_guests-*
# With the sources gone, the compiler cannot turn std's remapped paths back into this machine's.
rm -rf "$P/usr/src" "$P/usr/lib/rustlib/src" "$P/usr/lib/rustlib/rustc-src"

{
    echo "rustc-web $version"
    echo "wasi-libc $(policy wasi-libc)"
    echo "linkers of $(rustc --version)"
} >"$P/packages"
rm -rf "$PREFIX"
mv "$P" "$PREFIX"
rm -rf "$WORK"
say "ready: $("$PREFIX/bin/rustc" --version) with $TARGET in $PREFIX"
