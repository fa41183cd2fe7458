# SPDX-License-Identifier: Apache-2.0
"""The guest's kernel: Debian's own, of a newer suite than the host's, unpacked into a cache folder.

Nothing of it is installed on the host; /etc/apt and apt's lists stay untouched.
"""
import gzip
import hashlib
import lzma
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import debian
from debian import KEYRING, Unavailable, run

# Zero-copy transmission needs 6.13 on virtio-net and 6.14 on igb: Debian 12 and 13 are too old.
SUITE = "trixie-backports"
# Loaded when the guest starts: a read-only root has no place where the kernel would look for them.
MODULES = (
    "af_packet xsk_diag inet_diag udp_diag tun veth dummy ifb macvlan bridge 8021q vrf bonding "
    "ip_gre ip6_gre ipip ip6_tunnel sit fou virtio_net igb "
    # The output path. None of them registers a hook or a table before it is used.
    "nf_tables nfnetlink_hook nft_chain_nat nft_compat nft_ct nft_fib_inet nft_limit nft_log "
    "nft_masq nft_nat nft_numgen nft_redir nft_reject_inet nft_fwd_netdev nf_conntrack_netlink "
    "xfrm_user esp4 esp6 authenc cbc echainiv "
    "sch_netem sch_fq sch_fq_codel sch_codel sch_pie sch_drr sch_ingress sch_tbf sch_prio "
    "cls_matchall cls_u32 act_gact act_mirred act_skbedit"
).split()
# These would bring devices of their own into the guest's first namespace.
PARAMETERS = {"dummy": "numdummies=0", "ifb": "numifbs=0", "bonding": "max_bonds=0"}
ROOT_MODULES = "netfs 9pnet 9pnet_virtio 9p".split()


def cache_folder():
    return debian.cache_folder("lab")


class private_apt:
    """apt with lists of its own, for one suite."""

    def __init__(self, folder):
        lists = folder / "apt"
        (lists / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        sources = lists / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] {debian.archive_address()} {SUITE} main\n")
        self.options = [
            f"-oDir::Etc::sourcelist={sources}",
            "-oDir::Etc::sourceparts=/dev/null",
            f"-oDir::State::lists={lists / 'lists'}",
            f"-oDir::Cache={lists / 'cache'}",
            "-oAPT::Sandbox::User=root",
        ]

    def update(self):
        run(["apt-get", *self.options, "-qq", "update"])

    def kernel_version(self):
        shown = run(["apt-cache", *self.options, "show", "linux-image-amd64"]).decode()
        found = re.search(r"^Depends:.*\blinux-image-(\d[^ ,]*-amd64)\b", shown, re.MULTILINE)
        if not found:
            raise Unavailable(f"{SUITE} has no kernel package for amd64")
        return found[1]

    def unpack(self, names, folder):
        with tempfile.TemporaryDirectory(dir=folder.parent) as downloads:
            run(["apt-get", *self.options, "-qq", "download", *names], cwd=downloads)
            for package in sorted(pathlib.Path(downloads).glob("*.deb")):
                run(["dpkg", "-x", str(package), str(folder)])


def uncompressed_kernel(image):
    """The ELF inside a bzImage: QEMU starts it directly, without the decompressor's second."""
    data = image.read_bytes()
    for magic, tool in ((b"\x28\xb5\x2f\xfd", ["zstd", "-dc"]), (b"\xfd7zXZ\0", ["xz", "-dc"])):
        at = data.find(magic)
        while at >= 0:
            # What follows the stream makes the tool complain after it wrote everything.
            out = subprocess.run(
                tool, input=data[at:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ).stdout
            if out.startswith(b"\x7fELF"):
                return out
            at = data.find(magic, at + 1)
    raise Unavailable(f"no ELF kernel found in {image}")


def expand(module, target):
    """Copies one module, decompressed: under emulation the guest would take long for it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    data = module.read_bytes()
    if module.suffix == ".xz":
        data = lzma.decompress(data)
    elif module.suffix == ".gz":
        data = gzip.decompress(data)
    elif module.suffix == ".zst":
        data = run(["zstd", "-dc", str(module)])
    target.write_bytes(data)


def modules_needed(root, version, names):
    """Files of these modules and of what they depend on, dependencies first."""
    files = []
    for name in names:
        shown = run(["modprobe", "-d", str(root), "-S", version, "--show-depends", name]).decode()
        for line in shown.splitlines():
            words = line.split()
            if words[0] == "insmod" and words[1] not in files:
                files.append(words[1])
    return [pathlib.Path(file) for file in files]


def write_cpio(entries, target):
    """`entries`: (name, mode, bytes), parents first; the format of an initial RAM file system."""
    with open(target, "wb") as out:

        def put(name, mode, data):
            encoded = name.encode() + b"\0"
            fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
            header = b"070701" + b"".join(b"%08x" % field for field in fields)
            block = header + encoded
            out.write(block + b"\0" * (-len(block) % 4) + data + b"\0" * (-len(data) % 4))

        for entry in entries:
            put(*entry)
        put("TRAILER!!!", 0, b"")


def write_initramfs(root_modules, init, target):
    directory, program, text = 0o040755, 0o100755, 0o100644
    busybox = pathlib.Path("/bin/busybox")
    entries = [
        (name, directory, b"") for name in ("bin", "proc", "sys", "dev", "modules", "newroot")
    ]
    entries.append(("bin/busybox", program, busybox.read_bytes()))
    entries.append(("init", program, init.read_bytes()))
    entries.append(("modules/order", text, "".join(m.name + "\n" for m in root_modules).encode()))
    entries += [(f"modules/{module.name}", text, module.read_bytes()) for module in root_modules]
    write_cpio(entries, target)


class guest_kernel:
    """vmlinux, initramfs and the folder of modules, in `folder`."""

    def __init__(self, folder, version):
        self.version = version
        self.vmlinux = folder / "vmlinux"
        self.initramfs = folder / "initramfs"
        self.modules = folder / "modules"


def prepare(say):
    """Downloads and unpacks the kernel once; later calls only look at the cache."""
    cache = cache_folder()
    apt = private_apt(cache)
    if not any((apt_lists := cache / "apt" / "lists").glob("*Packages*")):
        say(f"lab: reading the package list of {SUITE}")
        apt.update()
    version = apt.kernel_version()
    init = pathlib.Path(__file__).parent / "init"
    # Other modules are another folder: nobody has to clear the cache when the list grows.
    listed = hashlib.sha256(repr((MODULES, PARAMETERS, ROOT_MODULES)).encode()).hexdigest()[:8]
    folder = cache / f"kernel-{version}-{listed}"
    kernel = guest_kernel(folder, version)
    if not folder.exists():
        say(f"lab: fetching kernel {version} (120 MB)")
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            unpacked = pathlib.Path(scratch) / "unpacked"
            unpacked.mkdir()
            parts = [f"linux-{part}-{version}" for part in ("base", "binary", "modules")]
            try:
                apt.unpack(parts, unpacked)
            except Unavailable:  # The list is older than the archive.
                shutil.rmtree(apt_lists)
                raise
            build(unpacked, version, pathlib.Path(scratch) / "made")
            (pathlib.Path(scratch) / "made").rename(folder)
    files = [folder / "root-modules" / name for name in (folder / "order").read_text().split()]
    write_initramfs(files, init, kernel.initramfs)
    return kernel


def build(unpacked, version, made):
    tree = unpacked / "usr" / "lib" / "modules" / version
    if not tree.exists():
        tree = unpacked / "lib" / "modules" / version
    # modprobe looks in lib, Debian 13 packages into usr/lib.
    if not (unpacked / "lib").exists():
        (unpacked / "lib").symlink_to("usr/lib")
    run(["depmod", "-b", str(unpacked), version])
    made.mkdir()
    image = tree / "vmlinuz"
    if not image.exists():
        image = unpacked / "boot" / f"vmlinuz-{version}"
    (made / "vmlinux").write_bytes(uncompressed_kernel(image))

    def plain_name(module):
        return re.sub(r"\.ko\..*$", ".ko", module.name)

    order = modules_needed(unpacked, version, ROOT_MODULES)
    for module in order:
        expand(module, made / "root-modules" / plain_name(module))
    (made / "order").write_text("".join(plain_name(m) + "\n" for m in order))
    target = made / "modules"
    loaded = modules_needed(unpacked, version, MODULES)
    for module in loaded:
        expand(module, target / plain_name(module))
    lines = [f"{plain_name(m)} {PARAMETERS.get(m.name.split('.')[0], '')}\n" for m in loaded]
    (target / "order").write_text("".join(lines))
