# SPDX-License-Identifier: Apache-2.0
"""One QEMU machine: its devices, its shares, its life."""
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import kernel as kernels

EMULATED = "tcg,thread=multi"
# A software KVM may exist and yet not be able to start a stock kernel: this long it may try.
KVM_TRIAL_S = 10
MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")


def nics(model):
    """Two of them, back to back."""
    if model == "none":
        return []
    out = []
    for number, mac in enumerate(MACS):
        out += ["-netdev", f"hubport,id=h{number},hubid=0"]
        if model == "virtio":
            # Without an IOMMU platform the driver refuses to bind zero-copy.
            device = "virtio-net-pci,disable-legacy=on,iommu_platform=on,rx_queue_size=1024"
        elif model == "igb":
            out += ["-device", f"pcie-root-port,id=rp{number},chassis={number + 1}"]
            device = f"igb,bus=rp{number}"
        else:
            raise ValueError(model)
        out += ["-device", f"{device},romfile=,netdev=h{number},mac={mac}"]
    return out


def share(tag, path, read_only):
    options = "security_model=none,multidevs=remap" + (",readonly=on" if read_only else "")
    return ["-virtfs", f"local,path={path},mount_tag={tag},{options}"]


class guest:
    def __init__(self, kernel, tree, out, model="none", memory_mb=2048):
        self.kernel, self.tree, self.out = kernel, tree, out
        self.model, self.memory_mb = model, memory_mb
        self.state = out / ".lab"

    def _qemu(self, accelerator, serial):
        arguments = "quiet panic=-1 mitigations=off random.trust_cpu=on no_timer_check"
        return [
            "qemu-system-x86_64",
            *("-accel", accelerator, "-machine", "q35", "-cpu", "max", "-smp", "2"),
            *("-m", str(self.memory_mb), "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-display", "none", "-device", "virtio-rng-pci"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"),
            *("-kernel", str(self.kernel.vmlinux), "-initrd", str(self.kernel.initramfs)),
            *("-append", f"console=ttyS0 {arguments}", *serial),
            *share("root", "/", True),
            *share("tree", self.tree, True),
            *share("modules", self.kernel.modules, True),
            *share("out", self.out, False),
            *nics(self.model),
        ]

    def _write_orders(self, command, folder, interactive):
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(parents=True)
        size = shutil.get_terminal_size()
        settings = {
            "LAB_TREE": str(self.tree),
            "LAB_FOLDER": str(folder),
            "LAB_INTERACTIVE": "1" if interactive else "",
            "LAB_ROWS": str(size.lines),
            "LAB_COLUMNS": str(size.columns),
        }
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        (self.state / "environment").write_text("".join(lines))
        (self.state / "command").write_text(" ".join(map(shlex.quote, command)) + "\n")

    def status(self):
        """The command's own; 125 if the guest did not come that far."""
        try:
            return int((self.state / "status").read_text())
        except (FileNotFoundError, ValueError):
            return 125

    def run(self, command, folder, timeout_s, accelerator=EMULATED, echo=sys.stdout.buffer):
        """Boots, runs the command in `folder`, shows what it prints as it comes, and powers off."""
        self._write_orders(command, folder, interactive=False)
        console = self.state / "console"
        with open(self.state / "qemu", "wb") as words:
            machine = subprocess.Popen(
                self._qemu(accelerator, ["-serial", f"file:{console}"]),
                stdin=subprocess.DEVNULL,
                stderr=words,
            )
        give_up = time.monotonic() + timeout_s
        output, shown = self.state / "output", 0
        try:
            ended = False
            while not ended:
                ended = machine.poll() is not None or time.monotonic() > give_up
                if output.exists() and echo is not None:
                    with open(output, "rb") as text:
                        text.seek(shown)
                        news = text.read()
                    shown += len(news)
                    echo.write(news)
                    echo.flush()
                time.sleep(0.05)
        finally:
            if machine.poll() is None:
                machine.kill()
            machine.wait()
        return self.status()

    def shell(self, folder, accelerator=EMULATED):
        self._write_orders([], folder, interactive=True)
        subprocess.run(self._qemu(accelerator, ["-serial", "mon:stdio"]))
        return self.status()

    def last_words(self):
        """Of QEMU and of the guest's console."""
        files = [file for name in ("qemu", "console") if (file := self.state / name).exists()]
        return "\n".join(
            line for f in files for line in f.read_text(errors="replace").splitlines()[-15:]
        )


def best_accelerator(kernel, tree, say):
    """KVM where it really starts this kernel; asked once per boot of the host."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return EMULATED
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    verdict = kernels.cache_folder() / f"accelerator-{boot}"
    if not verdict.exists():
        say("lab: trying KVM")
        out = kernels.cache_folder() / "trial"
        machine = guest(kernel, tree, out)
        works = machine.run(["true"], "/", KVM_TRIAL_S, "kvm", echo=None) == 0
        shutil.rmtree(out, ignore_errors=True)
        verdict.write_text("kvm" if works else EMULATED)
    return verdict.read_text()
