# Two commands matter: `make run` (try it) and `make test` (all that CI checks).
# On Debian 12 each installs what it needs: system packages as root, the rest in .venv.

# What the mount needs, to build (pyfuse3 has no wheel) and to run.
RUN_PACKAGES := attr fuse3 gcc libfuse3-dev pkg-config python3 python3-dev python3-venv

# The real tools and servers the tests put beside imagefs.
TEST_PACKAGES := bindfs cadaver ceph-common ceph-mgr ceph-mon ceph-osd chromium chromium-driver cryptsetup-bin curl davfs2 \
	dbus-daemon debootstrap genisoimage golang-github-vmware-govmomi-dev golang-go gvfs-backends iproute2 libglib2.0-bin \
	libvirt-clients libvirt-daemon litmus mariadb-server memcached nginx-light openssl postgresql \
	python3-rados python3-rbd \
	qemu-system-x86 qemu-utils radosgw rclone rsync shellcheck strace systemd xz-utils zstd

PYTHON ?= python3
BIN := .venv/bin

# Where `make run` serves.
LISTEN ?= 127.0.0.1:8080

# The tests start the command a thousand times: it is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: run test fast test-cinder test-databases check bench clean lock install deb run-packages test-packages

# Anybody on this machine may write: an example, not a way to serve.
run: export IMAGEFS_STATE := $(CURDIR)/state
# An empty file is the built-in defaults, whatever is configured on this machine.
run: export IMAGEFS_CONFIG := /dev/null
run: run-packages .venv/installed
	@mkdir -p mnt
	@test -e state/catalog.db || $(BIN)/imagefs init
	@echo 'The catalog is mounted at ./mnt, and served at http://$(LISTEN)/, until Ctrl-C;'
	@echo 'what you add stays in ./state.  Try, in another shell:'
	@echo '  cp IMAGE.qcow2 mnt/file/'
	@echo '  getfattr -n user.image.id mnt/file/IMAGE.qcow2'
	@echo '  qemu-img create -b $(CURDIR)/mnt/.by-id/ID -F qcow2 -f qcow2 /tmp/overlay.qcow2'
	@echo '  curl --fail-with-body -T OTHER.qcow2 http://$(LISTEN)/file/'
	@echo '  IMAGEFS_CONFIG=/dev/null IMAGEFS_STATE=$(CURDIR)/state $(BIN)/imagefs list'
	@trap 'test -z "$$mounted" || $(BIN)/imagefs umount mnt' EXIT; \
	trap 'exit 0' INT TERM; \
	mountpoint -q mnt || { $(BIN)/imagefs mount mnt && mounted=yes; } && \
	$(BIN)/imagefs dav --listen $(LISTEN) --anonymous write

# The loop to work in: what needs no mount, no server and no patience (tests/kit/marks.py).
# Its files are in memory, where no commit waits for a disk.
fast: export TMPDIR := $(if $(wildcard /dev/shm),/dev/shm,/tmp)
fast: run-packages .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q -m 'not mount and not server and not stress' -n 2 --dist loadscope \
		-o tmp_path_retention_policy=failed

# Two processes a core: half of the time a test waits, for a server or a deadline.
test: test-packages check
	$(BIN)/pytest -n 4 --dist loadscope
	$(call on_servers,tests/catalog/rules tests/catalog/repository)

# All of the catalog on both database servers; `make test` runs only a part of it there.
test-databases: test-packages .venv/installed
	$(call on_servers,tests/catalog tests/behaviour tests/crash)

# A connection that a test leaves open is no fault of what it tests.
define on_servers
for kind in postgresql mariadb; do \
	IMAGEFS_TEST_DATABASE=$$kind $(BIN)/pytest -n 4 --dist loadscope -W ignore::ResourceWarning \
		-m 'not sqlite' $(1) || exit; \
done
endef

# A real Cinder takes longer than all the rest.
test-cinder: test-packages .venv/installed
	IMAGEFS_CINDER=1 $(BIN)/pytest tests/catalog/stores/cinder tests/imagefs/test_remote_cinder.py

check: run-packages .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Ratios against other tools in the same run: one process, and no time-out.
bench: test-packages .venv/installed
	$(BIN)/pytest tests/bench -o python_files='bench_*.py' --timeout=0 -s

clean:
	! mountpoint -q mnt || fusermount3 -u mnt
	rm -rf .venv .servers build dist *.egg-info .*_cache .hypothesis state
	! test -d mnt || rmdir mnt
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Renew the lock files from pyproject.toml; add UPGRADE=--upgrade for the newest versions.
PIP_COMPILE := CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --no-annotate --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --strip-extras $(UPGRADE) pyproject.toml
lock: .venv/installed
	$(PIP_COMPILE) --output-file=requirements.txt
	$(PIP_COMPILE) --output-file=requirements-dev.txt --extra=dev --constraint=requirements.txt

# For a host: `imagefs` itself comes from pip or a package; these go beside it.
install:
	install -D -m 755 systemd/mount.imagefs $(DESTDIR)/sbin/mount.imagefs
	install -D -m 644 -t $(DESTDIR)/usr/lib/systemd/system systemd/*.service systemd/*.timer
	test -e $(DESTDIR)/etc/imagefs/imagefs.toml || \
		install -D -m 640 systemd/imagefs.toml $(DESTDIR)/etc/imagefs/imagefs.toml

# A Debian package, of this machine's architecture and Debian: DEB_FOLDER/imagefs_VERSION_ARCH.deb.
# With the libraries of these extras of pyproject.toml.
DEB_EXTRAS := mariadb,postgresql,vmware
DEB_VERSION ?= $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
DEB_FOLDER ?= dist
# Of dpkg-deb.
DEB_OPTIONS ?=
deb: run-packages
	packaging/stage.sh $(DEB_FOLDER)/tree $(DEB_EXTRAS)
	packaging/pack.sh $(DEB_FOLDER)/tree $(DEB_VERSION) \
		$(DEB_FOLDER)/imagefs_$(DEB_VERSION)_$$(dpkg --print-architecture).deb $(DEB_OPTIONS)

run-packages:
	@$(call apt_install,$(RUN_PACKAGES))
test-packages: run-packages
	@$(call apt_install,$(TEST_PACKAGES))

# Elsewhere than on Debian, the packages are the user's own business.
# RUNLEVEL=1: no package starts a server of its own.
define apt_install
command -v dpkg-query >/dev/null || exit 0; \
missing=$$(for package in $(1); do \
	dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed \
	|| echo $$package; \
done); \
test -n "$$missing" || exit 0; \
if test "$$(id -u)" != 0; then \
	echo "Missing packages; as root: apt-get install" $$missing >&2; exit 1; \
fi; \
export DEBIAN_FRONTEND=noninteractive; \
apt-get update -q && RUNLEVEL=1 apt-get install -q -y --no-install-recommends $$missing
endef

.venv/installed: requirements-dev.txt pyproject.toml | run-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'imagefs needs Python 3.11 or newer: make PYTHON=...' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements-dev.txt
	$(BIN)/pip install -q --no-deps -e .
	@touch $@
