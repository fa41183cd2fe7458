# SPDX-License-Identifier: Apache-2.0
"""sink.py PORT: a UDP socket whose filter refuses everything, so that the kernel counts and drops.

Each datagram that arrives is one more UdpInErrors or Udp6InErrors of the namespace, after its
checksum was looked at, and costs next to nothing. Ends at the end of its standard input."""
import ctypes
import socket
import struct
import sys

SO_ATTACH_FILTER = 26
BPF_RETURN_CONSTANT = 6

refuse = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN_CONSTANT, 0, 0, 0))
sink = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)  # For IPv4 too.
sink.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(refuse)))
sink.bind(("::", int(sys.argv[1])))
print("{}", flush=True)
sys.stdin.read()
