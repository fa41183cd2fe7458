# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command share: running it, and namespaces that are always removed."""
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib"))
from hosts import Hosts

COWIRE = os.environ.get("COWIRE", "cowire")
DEADLINE_S = 60


def need_root():
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root to make network namespaces")


def need_nft():
    """Skips unless there is nft(8)."""
    if shutil.which("nft") is None:
        raise unittest.SkipTest("needs nft")


def run(*words, netns=None, stdin=None, check=None, env=None):
    """Runs a command to its end. With `check` its exit status must be that."""
    prefix = ["ip", "netns", "exec", netns] if netns else []
    done = subprocess.run(
        [*prefix, *map(str, words)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=env,
    )
    if check is not None and done.returncode != check:
        raise AssertionError(
            f"{words}: exit {done.returncode}, expected {check}\n{done.stdout}\n{done.stderr}"
        )
    return done


def cowire(*words, **options):
    return run(COWIRE, *words, **options)


def cowire_alone(*words):
    """The command where it can reach nobody, should it send what it ought to refuse."""
    if os.geteuid() != 0:
        return run(COWIRE, *words)
    # Without any address the kernel lets a socket be bound to all of them.
    script = 'ip link set lo up && exec "$0" "$@"'
    return run("unshare", "--net", "sh", "-c", script, COWIRE, *words)


def unprivileged(*words):
    """The command as a user without any capability runs it; the caller is root."""
    return run(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", COWIRE, *words
    )


def with_capabilities(names, memlock_bytes, *words, netns=None):
    """The same with some capabilities only, and a limit on locked memory.

    `ip netns exec` would hide the control groups, which to see then takes CAP_SYS_ADMIN."""
    wanted = ",".join("+" + name for name in names)
    return run(
        *(("nsenter", f"--net=/run/netns/{netns}") if netns else ()),
        *("prlimit", f"--memlock={memlock_bytes}:{memlock_bytes}"),
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *(f"--inh-caps={wanted}", f"--ambient-caps={wanted}"),
        *(COWIRE, *words),
    )


def start(*words, netns=None, **options):
    prefix = ["ip", "netns", "exec", netns] if netns else []
    return subprocess.Popen(
        [*prefix, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_until(condition, what):
    """Polls, because nothing announces what the tests wait for; fails after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited {DEADLINE_S} s in vain for: {what}")


def set_network_namespace(file):
    """Takes this thread into the network namespace that an open file is of (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def ended(process):
    """Kills a background process that a failed test left behind."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def link_address(number, end):
    """Of an end, 1 or 2, of a pair that World.connect() made."""
    return f"02:00:00:00:{number:02x}:{end:02x}"


class World(Hosts):
    """Network namespaces of one test; `ip` runs iproute2 in one of them. Made at once, removed by
    close(). What fails raises hosts.Failure with its text."""

    PREFIX = "cowire-"  # As in testbed/netns.hpp.

    def __init__(self, *names):
        super().__init__(keep=False)
        self.HOSTS = names
        self.names = {name: self.namespace(name) for name in names}
        self.__enter__()

    def build(self):
        """Nothing between them: each test has links of its own."""

    def close(self):
        self.__exit__()

    def connect(self, a, a_link, b, b_link, number, resolved=False):
        """A veth pair, up, with the addresses of connect() in testbed/netns.hpp: 10.77.N.1 and
        fd77:N::1 on the first end, .2 and ::2 on the second. Resolved: each end has the other one
        as a permanent neighbour."""
        self.ip(a, f"link add {a_link} type veth peer name {b_link} netns {self.names[b]}")
        for name, link, own, other in ((a, a_link, 1, 2), (b, b_link, 2, 1)):
            self.ip(name, f"link set {link} address {link_address(number, own)} up")
            self.ip(name, f"addr add 10.77.{number}.{own}/24 dev {link}")
            self.ip(name, f"addr add fd77:{number}::{own}/64 dev {link} nodad")
            if resolved:
                known = f"lladdr {link_address(number, other)} dev {link} nud permanent"
                self.ip(name, f"neigh add 10.77.{number}.{other} {known}")
                self.ip(name, f"neigh add fd77:{number}::{other} {known}")

    def ip_json(self, name, command):
        """None where iproute2 reports an error."""
        done = run("ip", "-n", self.names[name], "-j", *command.split())
        return json.loads(done.stdout) if done.returncode == 0 else None

    def settle(self, name):
        """Waits until no address is tentative: until then the kernel takes another source."""
        wait_until(
            lambda: not self.ip(name, "-6 addr show tentative"), f"no tentative address in {name}"
        )

    def exec(self, name, *words, **options):
        return run(*words, netns=self.names[name], **options)

    def cowire(self, name, *words, **options):
        return cowire(*words, netns=self.names[name], **options)

    def start(self, name, *words, **options):
        return start(*words, netns=self.names[name], **options)


class BindingControlGroup:
    """A control group whose sockets are bound to a device and marked when they are made, as `ip vrf
    exec` does it: by a program on BPF_CGROUP_INET_SOCK_CREATE."""

    SYS_BPF = {"x86_64": 321, "aarch64": 280}
    PROG_LOAD, PROG_ATTACH = 5, 8
    CGROUP_SOCK_TYPE, INET_SOCK_CREATE = 9, 2

    def __init__(self, netns, device, mark):
        self.netns = netns
        index = json.loads(run("ip", "-n", netns, "-j", "link", "show", device, check=0).stdout)[0]
        self.mount = tempfile.mkdtemp()
        mounted = run("mount", "-t", "cgroup2", "none", self.mount)
        if mounted.returncode != 0:
            os.rmdir(self.mount)
            raise unittest.SkipTest(f"needs control groups of version 2: {mounted.stderr}")
        self.path = os.path.join(self.mount, f"cowire-{os.getpid()}")
        os.mkdir(self.path)
        try:
            self.attach(index["ifindex"], mark)
        except OSError as error:
            self.close()
            raise unittest.SkipTest(f"needs BPF programs of control groups: {error}") from error

    def attach(self, index, mark):
        def instruction(code, registers, offset=0, value=0):
            return struct.pack("<BBhi", code, registers, offset, value)

        program = ctypes.create_string_buffer(
            instruction(0xB7, 0x03, value=index)  # r3 = index
            + instruction(0x63, 0x31, offset=0)  # bpf_sock.bound_dev_if = r3
            + instruction(0xB7, 0x03, value=mark)  # r3 = mark
            + instruction(0x63, 0x31, offset=16)  # bpf_sock.mark = r3
            + instruction(0xB7, 0x00, value=1)  # r0 = 1: let it be made.
            + instruction(0x95, 0x00)  # exit
        )
        licence = ctypes.create_string_buffer(b"GPL")
        loaded = self.bpf(
            self.PROG_LOAD,
            struct.pack(
                "<IIQQ", self.CGROUP_SOCK_TYPE, 6, ctypes.addressof(program),
                ctypes.addressof(licence),
            ),
        )
        group = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.bpf(
                self.PROG_ATTACH, struct.pack("<IIII", group, loaded, self.INET_SOCK_CREATE, 0)
            )
        finally:
            os.close(group)
            os.close(loaded)

    def bpf(self, command, attributes):
        libc = ctypes.CDLL(None, use_errno=True)
        # Longer than any kernel's fields that matter here; the rest is zero.
        room = ctypes.create_string_buffer(attributes, 120)
        done = libc.syscall(self.SYS_BPF[os.uname().machine], command, room, 120)
        if done < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return done

    def cowire(self, *words):
        """The command as a process of the group."""
        join = f"echo $$ > {self.path}/cgroup.procs && exec " + '"$@"'
        return run("sh", "-c", join, "sh", "ip", "netns", "exec", self.netns, COWIRE, *words)

    def close(self):
        os.rmdir(self.path)
        run("umount", self.mount)
        os.rmdir(self.mount)


def scratch_file(test, text):
    file = tempfile.NamedTemporaryFile("w", delete=False)
    with file:
        file.write(text)
    test.addCleanup(os.unlink, file.name)
    return file.name


def interrupt(process):
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=DEADLINE_S)
