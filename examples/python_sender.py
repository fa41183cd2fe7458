#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""python_sender.py LIBRARY ADDRESS PORT COUNT: sends numbered datagrams from Python, by ctypes.

LIBRARY is libcowire.so.0 or a path to it. Nothing but the standard library is needed.
"""
import ctypes
import errno
import ipaddress
import os
import select
import socket
import struct
import sys


class Address(ctypes.Structure):
    """cowire_address: a sockaddr_in or sockaddr_in6."""

    _fields_ = [("raw", ctypes.c_uint32 * 7)]  # Aligned as a sockaddr_in6 is.

    @classmethod
    def of(cls, text, port):
        parsed = ipaddress.ip_address(text)
        if parsed.version == 4:
            raw = struct.pack("=HH4s", socket.AF_INET, socket.htons(port), parsed.packed)
        else:
            raw = struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(port), 0, parsed.packed, 0)
        return cls.from_buffer_copy(raw.ljust(28, b"\0"))


class Datagram(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_char_p),
        ("length", ctypes.c_size_t),
        ("to", Address),
        ("reserved", ctypes.c_uint32),
    ]


class Counter(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_uint64)]


class Cowire:
    """A transmitter with one sender."""

    def __init__(self, library):
        self.lib = ctypes.CDLL(library)
        self.lib.cowire_text.restype = ctypes.c_char_p
        self.lib.cowire_try_send.restype = ctypes.c_ssize_t
        self.lib.cowire_fan_out.restype = ctypes.c_ssize_t
        self.lib.cowire_counters.restype = ctypes.c_size_t
        self.tx, self.sender = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(self.lib.cowire_open(None, ctypes.byref(self.tx)))
        self._check(self.lib.cowire_sender_open(self.tx, None, ctypes.byref(self.sender)))
        self.news = select.poll()
        self.news.register(self.lib.cowire_sender_fd(self.sender), select.POLLIN)

    def _check(self, result):
        if result < 0:
            raise OSError(-result, f"{os.strerror(-result)}: {self.lib.cowire_text().decode()}")
        return result

    def _all(self, attempt, count):
        """Goes on with the rest, so that nobody gets anything twice."""
        done = 0
        while done < count:
            accepted = attempt(done)
            if accepted == -errno.EAGAIN:
                self.news.poll(1000)
                while self.lib.cowire_next_error(self.sender, ctypes.create_string_buffer(64)) == 0:
                    pass
            else:
                done += self._check(accepted)

    def send(self, messages, to):
        some = (Datagram * len(messages))(*(Datagram(m, len(m), to, 0) for m in messages))
        size = ctypes.sizeof(Datagram)
        self._all(
            lambda done: self.lib.cowire_try_send(
                self.sender, ctypes.byref(some, done * size), ctypes.c_size_t(len(some) - done)
            ),
            len(some),
        )

    def fan_out(self, message, addresses):
        to = (Address * len(addresses))(*addresses)
        size = ctypes.sizeof(Address)
        self._all(
            lambda done: self.lib.cowire_fan_out(
                self.sender,
                message,
                ctypes.c_size_t(len(message)),
                ctypes.byref(to, done * size),
                ctypes.c_size_t(len(to) - done),
                None,
            ),
            len(to),
        )

    def counters(self):
        known = self.lib.cowire_counters(self.tx, None, ctypes.c_size_t(0))
        some = (Counter * known)()
        self.lib.cowire_counters(self.tx, some, ctypes.c_size_t(known))
        return {one.name.decode(): one.value for one in some}

    def close(self):
        self.lib.cowire_sender_close(self.sender)
        self.lib.cowire_close(self.tx)


def main():
    if len(sys.argv) != 5:
        sys.exit("usage: python_sender.py LIBRARY ADDRESS PORT COUNT")
    library, address, port, count = sys.argv[1:]
    to = Address.of(address, int(port))
    cowire = Cowire(library)
    cowire.send([f"datagram {i}".encode() for i in range(int(count))], to)
    cowire.fan_out(b"to all", [to, to])
    print("submitted", cowire.counters()["submitted"])
    cowire.close()


if __name__ == "__main__":
    main()
