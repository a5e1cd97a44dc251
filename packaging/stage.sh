#!/bin/sh
# Lays out the tree of the Debian package below FOLDER: everything but what depends on its version.
#   packaging/stage.sh FOLDER [EXTRA,...]
# Python is Debian's own, as it will be on the host; pip is used as it is configured on this machine.
set -eu

tree=$1 extras=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
# Absolute: some of the commands below run elsewhere.
rm -rf "$tree" && mkdir -p "$tree"
tree=$(cd "$tree" && pwd)
program=$tree/opt/imagefs/package
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
cd "$here"

# The wheel, from what git knows: an older build left here must not slip in.
mkdir "$work/source"
git ls-files -z -- catalog dav imagefs web pyproject.toml README.md LICENSE |
    xargs -0 cp --parents -t "$work/source"
/usr/bin/python3 -m venv "$program"
"$program/bin/pip" wheel -q --no-deps -w "$work" "$work/source"

# The locked versions hold for the extras as well: requirements-dev.txt has them all.
for wheel in "$work"/*.whl; do
    "$program/bin/pip" install -q --no-compile -c requirements-dev.txt "$wheel${extras:+[$extras]}"
done
"$program/bin/pip" uninstall -q -y pip setuptools

# Only Python and our own command are wanted in bin; nothing may name the folder it was built in.
find "$program/bin" -type f -delete
rm -f "$program"/lib64 "$program"/lib/python3*/site-packages/imagefs-*.dist-info/direct_url.json
rm -rf "$program/include" "$program/share"
sed -i '/^command = /d' "$program/pyvenv.cfg"
# Compiled here: a host writes nothing below /opt, and nothing is left there after a removal.
"$program/bin/python3" -m compileall -q -f -j 2 --invalidation-mode unchecked-hash \
    -s "$program" -p /opt/imagefs/package "$program/lib"

# Manual pages and completions come from the commands themselves.
man=$tree/usr/share/man
mkdir -p "$man/man1" "$man/man5" "$man/man8"
"$program/bin/python3" packaging/manpages.py command > "$man/man1/imagefs.1"
"$program/bin/python3" packaging/manpages.py settings systemd/imagefs.toml > "$man/man5/imagefs.toml.5"
cp packaging/mount.imagefs.8 "$man/man8/"
find "$man" -type f -exec gzip -9n {} +
completion() {
    mkdir -p "$(dirname "$tree/usr/share/$2")"
    _IMAGEFS_COMPLETE=$1_source "$program/bin/python3" -c 'from catalog.cli import main; main()' \
        > "$tree/usr/share/$2"
}
completion bash bash-completion/completions/imagefs
completion zsh zsh/vendor-completions/_imagefs
completion fish fish/vendor_completions.d/imagefs.fish

# What lies beside the program.  Debian's /sbin is a link to /usr/sbin.
make -s install DESTDIR="$tree"
mkdir -p "$tree/usr/sbin" "$tree/usr/bin"
mv "$tree/sbin/mount.imagefs" "$tree/usr/sbin/" && rmdir "$tree/sbin"
ln -s ../../opt/imagefs/current/bin/imagefs "$tree/usr/bin/imagefs"
install -D -m 644 packaging/sysusers.conf "$tree/usr/lib/sysusers.d/imagefs.conf"
install -D -m 644 packaging/tmpfiles.conf "$tree/usr/lib/tmpfiles.d/imagefs.conf"
install -D -m 644 -t "$tree/usr/share/imagefs/grafana" packaging/grafana/*.json
doc=$tree/usr/share/doc/imagefs
install -D -m 644 -t "$doc" README.md CHANGELOG.md docs/*.md
install -m 644 packaging/debian/copyright "$doc/copyright"
gzip -9n "$doc/CHANGELOG.md"
chmod -R u=rwX,go=rX "$tree"
chmod 640 "$tree/etc/imagefs/imagefs.toml"
