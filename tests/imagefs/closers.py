"""Programs that write an image and close it in an unusual way, for `test_exec`."""

from __future__ import annotations

from dataclasses import dataclass

from tests.kit.tools import CHILD

DATA = bytes(range(256)) * 32
BEGIN = (
    CHILD
    + """
import ctypes, os, signal, socket, struct, subprocess, sys, threading, time
path = sys.argv[1]
os.write(int(sys.argv[2]), struct.pack("d", time.monotonic()))
data = bytes(range(256)) * 32
half = len(data) // 2
libc = ctypes.CDLL(None, use_errno=True)
true = ["/bin/true"]
def create(flags=os.O_WRONLY):
    return os.open(path, flags | os.O_CREAT)  # close-on-exec, as Python always does
def execute():
    os.execv(true[0], true)
def unloadable():  # its only segment lies beyond all memory: found out when it is too late to fail
    numbers = 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\\x7fELF\\2\\1\\1", *numbers)
    program = os.memfd_create("unloadable")
    os.write(program, head + struct.pack("<IIQQQQQQ", 1, 5, 0, 1 << 47, 0, 4096, 4096, 4096))
    return "/proc/self/fd/%d" % program
def await_sleep(number):
    while "D (disk" not in open("/proc/%d/status" % number).read(): time.sleep(0.01)
def hung():  # a mount that never answers, in a mount namespace of our own
    assert libc.unshare(0x20000) == 0
    assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
    device = os.open("/dev/fuse", os.O_RDWR)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % device
    assert libc.mount(b"hung", b"/mnt", b"fuse", 0, options) == 0
    return "/mnt/x"
"""
)


@dataclass(frozen=True, slots=True)
class Variant:
    """A program that writes an image in an unusual way."""

    program: str
    reason: str = ""
    """A pattern in the message if the image is to be killed."""
    either: bool = False
    """Whether it may also be active, and whole then: it depends on which comes first."""
    unseen: bool = False
    """Whether a mount that may not look into processes cannot tell how it ended."""


VARIANTS: dict[str, Variant] = {
    "exec": Variant("""
fd = create(); os.write(fd, data); execute()
"""),
    "exec read-write": Variant("""
fd = create(os.O_RDWR); os.write(fd, data); execute()
"""),
    "exec in a child after the parent has closed": Variant("""
fd = create(); os.write(fd, data)
ready, go = os.pipe()
number = child(lambda: (os.read(ready, 1), execute()))
os.close(fd)
os.write(go, b"x")
os.waitpid(number, 0)
"""),
    "exec in a child while the parent closes": Variant("""
fd = create(); os.write(fd, data)
number = child(execute)
os.close(fd)
os.waitpid(number, 0)
"""),
    "exec in a child while the parent goes on": Variant("""
fd = create(); os.write(fd, data[:half])
os.waitpid(child(execute), 0)
os.write(fd, data[half:])
os.close(fd)
"""),
    "exec of a child of its child, after both have ended": Variant("""
fd = create(); os.write(fd, data)
child(lambda: child(lambda: (time.sleep(0.1), execute())))
"""),
    "exec of what does not exist": Variant("""
fd = create(); os.write(fd, data[:half])
try: os.execv("/nonexistent", ["x"])
except FileNotFoundError: pass
os.write(fd, data[half:]); os.close(fd)
"""),
    "exec of a script": Variant("""
fd = create(); os.write(fd, data)
os.execv("/usr/bin/ldd", ["ldd", "--version"])
"""),
    "exec from memory": Variant("""
fd = create(); os.write(fd, data)
program = os.memfd_create("true", 0)
os.write(program, open("/bin/true", "rb").read())
os.execve(program, true, {})
"""),
    "exec keeps it": Variant("""
fd = create(); os.write(fd, data[:half]); os.dup2(fd, 1)
script = "import os; os.write(1, (bytes(range(256)) * 32)[4096:])"
os.execv(sys.executable, [sys.executable, "-ISc", script])
"""),
    "exec, several at once": Variant("""
fd = create(); os.write(fd, data)
numbers = [child(execute) for _ in range(8)]
os.close(fd)
for number in numbers: os.waitpid(number, 0)
"""),
    "exec by a thread": Variant("""
fd = create(); os.write(fd, data)
threading.Thread(target=execute).start()
time.sleep(100)
"""),
    "exec by a thread after the first has ended": Variant("""
fd = create(); os.write(fd, data)
threading.Thread(target=lambda: (time.sleep(0.1), execute())).start()
libc.pthread_exit(None)
"""),
    "exec by one it was sent to": Variant("""
here, there = socket.socketpair()
def receive():
    fd = socket.recv_fds(there, 1, 1)[1][0]
    os.write(fd, data)
    os.set_inheritable(fd, False)
    execute()
number = child(receive)
fd = create(); socket.send_fds(here, [b"x"], [fd]); os.close(fd)
os.waitpid(number, 0)
"""),
    "exec while it is traced": Variant("""
fd = create(); os.write(fd, data)
number = child(lambda: (libc.ptrace(0, 0, 0, 0), execute()))
os.waitpid(number, 0)
os.close(fd)
libc.ptrace(7, number, 0, 0)
os.waitpid(number, 0)
"""),
    "exec, killed in the middle": Variant(
        """
fd = create(); os.write(fd, data)
number = child(execute)
os.close(fd)
os.kill(number, signal.SIGKILL)
os.waitpid(number, 0)
""",
        "was killed by signal 9",
        either=True,
    ),
    "exec of what cannot be loaded, after the point of no return": Variant(
        """
fd = create(); os.write(fd, data); os.execv(unloadable(), true)
""",
        "was killed by signal 11",
        either=True,
    ),
    "exec of what cannot be loaded, by a child that has it alone": Variant(
        """
fd = create(); os.write(fd, data[:half])
number = child(lambda: (os.write(fd, data[half:]), os.execv(unloadable(), true)))
os.close(fd)
os.waitpid(number, 0)
""",
        "was killed by signal 11",
        either=True,
    ),
    "vfork": Variant("""
fd = create(); os.write(fd, data[:half])
subprocess.run(true, close_fds=False)
os.write(fd, data[half:]); os.close(fd)
"""),
    "vfork and close_fds": Variant("""
fd = create(); os.write(fd, data[:half])
subprocess.run(true)
os.write(fd, data[half:]); os.close(fd)
"""),
    "posix_spawn": Variant("""
fd = create(); os.write(fd, data[:half])
number = os.posix_spawn(true[0], true, {})
os.write(fd, data[half:]); os.close(fd)
os.waitpid(number, 0)
"""),
    "posix_spawn by a thread during the close": Variant("""
fd = create(); os.write(fd, data)
thread = threading.Thread(target=lambda: [os.posix_spawn(true[0], true, {}) for _ in range(8)])
thread.start()
os.close(fd)
thread.join()
"""),
    "close_range": Variant("""
fd = create(); os.write(fd, data)
assert libc.syscall(436, fd, fd, 0) == 0
time.sleep(0.1)
"""),
    "close_range, close-on-exec": Variant("""
fd = create(); os.write(fd, data); os.set_inheritable(fd, True)
assert libc.syscall(436, fd, fd, 4) == 0
execute()
"""),
    "dup2 over it": Variant("""
fd = create(); os.write(fd, data)
os.dup2(os.open("/dev/null", os.O_RDONLY), fd)
time.sleep(0.1)
"""),
    "clone with CLONE_FILES, exec": Variant("""
fd = create(); os.write(fd, data[:half])
number = libc.syscall(56, 0x400 | signal.SIGCHLD, 0, 0, 0, 0)
if number == 0: execute()
os.waitpid(number, 0)
os.write(fd, data[half:]); os.close(fd)
"""),
    "clone with CLONE_FILES, the child closes": Variant("""
fd = create(); os.write(fd, data)
number = libc.syscall(56, 0x400 | signal.SIGCHLD, 0, 0, 0, 0)
if number == 0: os.close(fd); os._exit(0)
os.waitpid(number, 0)
"""),
    "clone with CLONE_FILES, the child goes on": Variant("""
fd = create(); os.write(fd, data[:half])
number = libc.syscall(56, 0x400 | signal.SIGCHLD, 0, 0, 0, 0)
if number == 0: time.sleep(0.1); os.write(fd, data[half:]); os._exit(0)
os._exit(0)
"""),
    "a thread with files of its own": Variant("""
fd = create(); os.write(fd, data[:half])
def work():
    assert libc.unshare(0x400) == 0
    time.sleep(0.1)
    os.write(fd, data[half:]); os.close(fd)
thread = threading.Thread(target=work); thread.start(); time.sleep(0.1)
os.close(fd)
thread.join()
"""),
    "a thread closes": Variant("""
fd = create(); os.write(fd, data)
thread = threading.Thread(target=os.close, args=(fd,)); thread.start(); thread.join()
"""),
    "the first thread has ended": Variant("""
fd = create(); os.write(fd, data[:half])
def work():
    time.sleep(0.1)
    os.write(fd, data[half:]); os.close(fd)
    os._exit(0)
threading.Thread(target=work).start()
libc.pthread_exit(None)
"""),
    "a signal handler closes": Variant("""
fd = create(); os.write(fd, data)
signal.signal(signal.SIGALRM, lambda *_: os.close(fd))
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(0.1)
"""),
    "exit with it": Variant("""
fd = create(); os.write(fd, data); os._exit(0)
"""),
    "exit of a thread with it": Variant(
        """
fd = create(); os.write(fd, data)
threading.Thread(target=os._exit, args=(0,)).start()
time.sleep(100)
""",
        unseen=True,
    ),
    "a stopped child without it": Variant(
        """
fd = create(); os.write(fd, data)
number = child(lambda: (os.close(fd), os.kill(os.getpid(), signal.SIGSTOP)))
os.waitpid(number, os.WUNTRACED)
os.close(fd)
os.kill(number, signal.SIGKILL)
""",
        unseen=True,
    ),
    "a stopped child with it": Variant("""
fd = create(); os.write(fd, data[:half])
def work():
    os.kill(os.getpid(), signal.SIGSTOP)
    os.write(fd, data[half:])
number = child(work)
os.waitpid(number, os.WUNTRACED)
os.close(fd)
os.kill(number, signal.SIGCONT)
os.waitpid(number, 0)
"""),
    "a stopped child with it, killed": Variant(
        """
fd = create(); os.write(fd, data[:half])
number = child(lambda: os.kill(os.getpid(), signal.SIGSTOP))
os.waitpid(number, os.WUNTRACED)
os.close(fd)
os.kill(number, signal.SIGKILL)
os.waitpid(number, 0)
""",
        "was killed by signal 9",
    ),
    "a stopped parent": Variant("""
fd = create(); os.write(fd, data)
parent = os.getpid()
if os.fork() == 0:
    os.kill(parent, signal.SIGSTOP)
    os.close(fd)
    os.kill(parent, signal.SIGCONT)
    os._exit(0)
os.close(fd)
"""),
    "a traced child": Variant("""
fd = create(); os.write(fd, data)
def work():
    os.close(fd)
    libc.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
number = child(work)
os.waitpid(number, os.WUNTRACED)
os.close(fd)
libc.ptrace(7, number, 0, 0)
os.waitpid(number, 0)
"""),
    "a child in uninterruptible sleep": Variant("""
pipe = "/tmp/fifo-%d" % os.getpid()
os.mkfifo(pipe)
fd = create(); os.write(fd, data)
def work():
    os.close(fd)  # posix_spawn then sleeps until the other one has executed
    os.posix_spawn(true[0], true, {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, pipe, os.O_WRONLY, 0)])
number = child(work)
await_sleep(number)
os.close(fd)
os.close(os.open(pipe, os.O_RDONLY))
os.unlink(pipe)
os.waitpid(number, 0)
"""),
    "a child that waits for a mount that hangs": Variant(
        """
elsewhere = hung()
fd = create(); os.write(fd, data)
number = child(lambda: (os.close(fd), os.stat(elsewhere)))
await_sleep(number)
os.close(fd)
os.kill(number, signal.SIGKILL)
os.waitpid(number, 0)
""",
        unseen=True,
    ),
    "a child that waits for a mount that hangs, with it": Variant("""
elsewhere = hung()
fd = create(); os.write(fd, data[:half])
def work():
    try: os.stat(elsewhere)
    except OSError: os.write(fd, data[half:])
number = child(work)
await_sleep(number)
os.close(fd)
assert libc.umount2(b"/mnt", 1) == 0
os.waitpid(number, 0)
"""),
    "a child that waits for a mount that hangs, with it, killed": Variant(
        """
elsewhere = hung()
fd = create(); os.write(fd, data[:half])
number = child(lambda: os.stat(elsewhere))
await_sleep(number)
os.close(fd)
os.kill(number, signal.SIGKILL)
os.waitpid(number, 0)
""",
        "was killed by signal 9",
    ),
    "a child in another pid namespace goes on": Variant("""
fd = create(); os.write(fd, data[:half])
assert libc.unshare(0x20000000) == 0
number = child(lambda: (time.sleep(0.1), os.write(fd, data[half:])))
os.close(fd)
os.waitpid(number, 0)
"""),
    "a child in another pid namespace executes": Variant("""
fd = create(); os.write(fd, data)
assert libc.unshare(0x20000000) == 0
number = child(lambda: (time.sleep(0.1), execute()))
os.close(fd)
os.waitpid(number, 0)
"""),
    "a child in another pid namespace, killed": Variant(
        """
fd = create(); os.write(fd, data[:half])
assert libc.unshare(0x20000000) == 0
number = child(lambda: time.sleep(100))
os.close(fd)
os.kill(number, signal.SIGKILL)
os.waitpid(number, 0)
""",
        "was killed by signal 9",
    ),
    "a writer in another pid namespace": Variant("""
assert libc.unshare(0x20000000) == 0
def work():
    fd = create(); os.write(fd, data); execute()
os.waitpid(child(work), 0)
"""),
    "a writer in another pid namespace, killed": Variant(
        """
assert libc.unshare(0x20000000) == 0
written, tell = os.pipe()
def work():
    fd = create(); os.write(fd, data[:half]); os.write(tell, b"x")
    time.sleep(100)
number = child(work)
os.read(written, 1)
os.kill(number, signal.SIGKILL)
""",
        "was killed by signal 9",
    ),
    "nobody may look into it": Variant("""
libc.prctl(4, 0)
fd = create(); os.write(fd, data); execute()
"""),
    "a child of another user goes on": Variant("""
fd = create(); os.write(fd, data[:half])
number = child(lambda: (os.setuid(65534), time.sleep(0.1), os.write(fd, data[half:])))
os.close(fd)
os.waitpid(number, 0)
"""),
    "a child that was killed before": Variant("""
fd = create(); os.write(fd, data[:half])
number = child(lambda: (os.close(fd), time.sleep(100)))
time.sleep(0.1)
os.kill(number, signal.SIGTERM)
time.sleep(0.1)  # a zombie now
os.write(fd, data[half:]); os.close(fd)
"""),
    "a helper that is killed just then": Variant(
        """
fd = create(); os.write(fd, data)
for _ in range(5):
    helper = subprocess.Popen(["sleep", "100"])
    helper.terminate()
os.close(fd)
""",
        unseen=True,
    ),
    "a child that fails with it": Variant("""
fd = create(); os.write(fd, data[:half])
os.waitpid(child(lambda: os._exit(3)), 0)
os.write(fd, data[half:]); os.close(fd)
"""),
    "many short lives": Variant("""
fd = create(); os.write(fd, data)
for _ in range(10): os.waitpid(child(lambda: None), 0)
os.close(fd)
"""),
    "a child is killed": Variant(
        """
fd = create(); os.write(fd, data[:half])
os.waitpid(child(lambda: os.kill(os.getpid(), signal.SIGKILL)), 0)
os.write(fd, data[half:])
""",
        "was killed by signal 9",
        unseen=True,
    ),
    "a child of its child is killed": Variant(
        """
fd = create(); os.write(fd, data[:half])
def work():
    number = child(lambda: (time.sleep(0.1), os.kill(os.getpid(), signal.SIGTERM)))
    os.waitpid(number, 0)
number = child(work)
os.waitpid(number, 0)
""",
        "was killed by signal 15",
        unseen=True,
    ),
    "killed": Variant(
        """
fd = create(); os.write(fd, data[:half])
os.kill(os.getpid(), signal.SIGKILL)
""",
        "was killed by signal 9",
    ),
    "killed with threads": Variant(
        """
fd = create(); os.write(fd, data[:half])
for _ in range(10): threading.Thread(target=time.sleep, args=(100,)).start()
os.kill(os.getpid(), signal.SIGTERM)
""",
        "was killed by signal 15",
    ),
    "exit with a status": Variant(
        """
fd = create(); os.write(fd, data[:half])
os._exit(3)
""",
        "exited with status 3 without closing the file",
        unseen=True,
    ),
}
