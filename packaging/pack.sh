#!/bin/sh
# Makes a Debian package of a tree that stage.sh has laid out:
#   packaging/pack.sh FOLDER VERSION FILE.deb [OPTION of dpkg-deb...]
set -eu

tree=$1 version=$2 package=$3
shift 3
debian=$(cd "$(dirname "$0")/debian" && pwd)
program=$tree/opt/imagefs/package
# As on the host: every version is in a folder of its own there, see debian/postinst.
python=/opt/imagefs/versions/$version/bin/python3

cat > "$program/bin/imagefs" <<END
#!$python
import sys
from catalog.cli import main
sys.exit(main())
END
chmod 755 "$program/bin/imagefs"

rm -rf "$tree/DEBIAN" && mkdir "$tree/DEBIAN"
fill() {
    sed -e "s/@VERSION@/$version/g" -e "s/@ARCHITECTURE@/$(dpkg --print-architecture)/g" \
        -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f 1)/g" \
        -e "s/@PYTHON@/$minor/g" -e "s/@NEXT_PYTHON@/3.$((${minor#3.} + 1))/g" \
        -e "s/@LIBC@/$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)/g" "$debian/$1" > "$tree/DEBIAN/$1"
}
minor=$("$program/bin/python3" -c 'import sys; print("3.%d" % sys.version_info[1])')
for file in control preinst postinst prerm postrm; do
    fill "$file"
    chmod 755 "$tree/DEBIAN/$file"
done
chmod 644 "$tree/DEBIAN/control"
echo /etc/imagefs/imagefs.toml > "$tree/DEBIAN/conffiles"
(cd "$tree" && find etc opt usr -type f -print0 | sort -z | xargs -0 md5sum) > "$tree/DEBIAN/md5sums"
mkdir -p "$(dirname "$package")"
dpkg-deb --root-owner-group "$@" --build "$tree" "$package"
