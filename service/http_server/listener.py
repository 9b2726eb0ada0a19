"""Closing a listening socket without resetting pending connections.

Closing the socket resets every connection in the kernel's accept queue. Under load there are always some, and their
clients have often sent a request. Before the close, a packet filter on the socket therefore drops the SYN packets of
new connections. Their clients retransmit the SYN after a second and are then refused.
"""

import ctypes
import logging
import socket
import struct

log = logging.getLogger(__name__)

_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>; the socket module has no constant for it
_FLAGS_BYTE = 13  # of the TCP header (RFC 9293, section 3.1), which is where the filter's packet begins
_SYN, _SYN_OR_ACK = 0x02, 0x12
# Classic BPF, each instruction (code, jump if true, jump if false, constant): load the flags, keep SYN and ACK, and
# if only SYN is set, keep 0 bytes of the packet, else all.
_DROP_NEW_CONNECTIONS = (
    (0x30, 0, 0, _FLAGS_BYTE),
    (0x54, 0, 0, _SYN_OR_ACK),
    (0x15, 0, 1, _SYN),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def drop_new_connections(listener: socket.socket) -> None:
    """Drop the SYN packets of new connections; pending ones can still be accepted. Only Linux supports it."""
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_NEW_CONNECTIONS)
    memory = ctypes.create_string_buffer(program)
    try:
        listener.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("HP", len(_DROP_NEW_CONNECTIONS), ctypes.addressof(memory)),
        )
    except OSError:
        log.info("this system has no packet filters for sockets: clients that connect right now may be cut off")
