/* SPDX-License-Identifier: Apache-2.0 */
/* cowire for C, and for whatever calls C: UDP datagrams put on the wire through AF_XDP exactly as
 * the Linux kernel would have sent them.
 *
 *     cowire_transmitter *tx;
 *     cowire_sender *s;
 *     if (cowire_open(NULL, &tx) || cowire_sender_open(tx, NULL, &s)) fail(cowire_text());
 *     cowire_datagram d = {.data = "hello", .length = 5, .to.v4 = destination};
 *     ssize_t accepted = cowire_try_send(s, &d, 1);
 *
 * Link with -lcowire (pkg-config cowire-c, CMake's cowire::c).
 *
 * Results. 0 or a count, or a negative errno; cowire_text() then says more, for people. No call but
 * cowire_open(), cowire_open_file(), cowire_sender_open(), cowire_explain() and the closing ones
 * waits for anything, and none throws.
 *
 * Threads. All calls may be made from any thread at once, on the same handles too; but a handle must
 * not be closed while somebody calls with it, and a frame is used by one thread at a time. Nothing of
 * the caller's is ever called: cowire_sender_fd() is what to poll.
 *
 * Warnings. What an operator should know, such as that the queues of an interface are taken, so that
 * the kernel sends what goes there, is written to stderr, or where options.log_fd says: lines that
 * begin with "cowire: warning: " or "cowire: error: ". Where a line cannot be written at once it is
 * left out.
 *
 * Order. What one thread sends to one destination leaves in the order of its calls; for all threads
 * together so with options.shared_producers = 1. Datagrams with choices of their own may come later
 * than others (async/datagram_options.hpp).
 *
 * Fork. In a child the parent's handles fail with -ECHILD, and have no counters; close nothing there.
 *
 * Stability. Options begin with their size, which the macros below set: what a newer library adds
 * is at its default for a program built against an older header, and a program that sets what an
 * older library does not know gets -E2BIG. Fields named `reserved` must be 0. */
#ifndef COWIRE_H
#define COWIRE_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the library exports is marked with it. */
#define COWIRE_API __attribute__((visibility("default")))

/* Sends; has the threads, sockets and frames. */
typedef struct cowire_transmitter cowire_transmitter;
/* One source of datagrams: port, mark and so on. */
typedef struct cowire_sender cowire_sender;

/* An IPv4 or IPv6 address and port, as `any.sa_family` says; ports in network byte order. */
typedef union cowire_address {
  struct sockaddr any;    /* Which of the others it is. */
  struct sockaddr_in v4;  /* AF_INET */
  struct sockaddr_in6 v6; /* AF_INET6 */
} cowire_address;

/* The way that frames leave by (xdp/send_mode.hpp). */
typedef enum cowire_mode {
  COWIRE_MODE_AUTO = 0, /* The best that works, interface by interface. */
  COWIRE_MODE_ZERO_COPY,
  COWIRE_MODE_COPY,
  COWIRE_MODE_KERNEL /* No AF_XDP: the kernel sends everything. */
} cowire_mode;

/* What a transmitter is made with; COWIRE_OPTIONS_INIT first, then changes. */
typedef struct cowire_options {
  size_t size;            /* sizeof(cowire_options) */
  const char *interfaces; /* Names with commas between them; NULL = all Ethernet devices. */
  uint32_t mode;          /* A cowire_mode. */
  uint32_t tx_cores;      /* 0 = 1. */
  uint32_t frames;        /* On the way at once, all senders together; 0 = 4096. */
  uint32_t shared_producers; /* Parts of them, a thread uses one; 0 = 4. */
  int log_fd;                /* For warnings; it is duplicated. 0 = stderr, -1 = none. */
  uint32_t reserved;         /* 0 */
} cowire_options;
/* All defaults. */
#define COWIRE_OPTIONS_INIT {sizeof(cowire_options), NULL, COWIRE_MODE_AUTO, 0, 0, 0, 0, 0}

/* What a sender is made with; COWIRE_SENDER_OPTIONS_INIT first, then changes. */
typedef struct cowire_sender_options {
  size_t size;              /* sizeof(cowire_sender_options) */
  uint16_t source_port;     /* Host order; 0 = one that the kernel picks. */
  uint8_t tos;              /* As IP_TOS and IPV6_TCLASS. */
  uint8_t ttl;              /* As IP_TTL and IPV6_UNICAST_HOPS; 0 = the system's. */
  uint32_t mark;            /* As SO_MARK. */
  const char *device;       /* As SO_BINDTODEVICE; NULL = any. */
  int adopt_socket;         /* A bound UDP socket to send as, which is duplicated; -1 = none. */
  uint32_t errors_max;      /* Unread error reports beyond are dropped; 0 = 64. */
  cowire_address source_v4; /* Source addresses; family 0 = as the routes say. */
  cowire_address source_v6; /* Likewise. */
} cowire_sender_options;
/* All defaults. */
#define COWIRE_SENDER_OPTIONS_INIT \
  {sizeof(cowire_sender_options), 0, 0, 0, 0, NULL, -1, 0, {{0, {0}}}, {{0, {0}}}}

/* One to send. Read during the call only. */
typedef struct cowire_datagram {
  const void *data;  /* Its payload. */
  size_t length;     /* In bytes; 0 is a datagram, too. */
  cowire_address to; /* Where it goes. */
  uint32_t reserved; /* 0 */
} cowire_datagram;

/* What the datagrams of one call choose for themselves, beside what the sender has; read during the
 * call only. What each costs, and when it is refused: async/datagram_options.hpp. */
typedef struct cowire_datagram_options {
  size_t size;           /* sizeof(cowire_datagram_options) */
  cowire_address source; /* As IP_PKTINFO and IPV6_PKTINFO; family 0 = the sender's. */
  int dscp;              /* 0 to 63; -1 = the sender's. */
  int ecn;               /* 0 to 3, as RFC 3168 numbers them; -1 = the sender's. */
  uint32_t ttl;          /* As IP_TTL and IPV6_HOPLIMIT, to groups, too; 0 = the sender's. */
  uint32_t flags;        /* COWIRE_WITH_MARK, COWIRE_PATH_MTU_PROBE */
  uint32_t mark;         /* As SO_MARK; with COWIRE_WITH_MARK. */
} cowire_datagram_options;
/* No choices. */
#define COWIRE_DATAGRAM_OPTIONS_INIT \
  {sizeof(cowire_datagram_options), {{0, {0}}}, -1, -1, 0, 0, 0}
#define COWIRE_WITH_MARK 1u      /* `mark` counts, 0 as well. */
#define COWIRE_PATH_MTU_PROBE 2u /* As IP_PMTUDISC_PROBE. */

/* A place in the memory that the NIC reads, to write a datagram into. It may be moved by assignment;
 * the copy that is left behind is not to be used then. */
typedef struct cowire_frame {
  void *data;         /* Where to write. */
  size_t capacity;    /* In bytes: cowire_payload_max(). */
  size_t length;      /* The caller's to set: how much of it is the datagram. */
  uint64_t opaque[6]; /* The library's. */
} cowire_frame;

/* Something that the kernel or the network said about a datagram submitted earlier. */
typedef struct cowire_error {
  cowire_address destination; /* Where that datagram was to go. */
  int number;       /* A positive errno: ENETUNREACH, ECONNREFUSED, EMSGSIZE ... */
  uint32_t mtu;     /* With EMSGSIZE: the path MTU, where it is known; else 0. */
  int from_network; /* 1: an ICMP message; 0: this host refused it. */
} cowire_error;

/* One of cowire_counters(). */
typedef struct cowire_counter {
  const char *name; /* Lasts as long as the library is loaded. */
  uint64_t value;   /* Since cowire_open(). */
} cowire_counter;

/* Version of the library, "MAJOR.MINOR.PATCH". */
COWIRE_API const char *cowire_version(void);
/* What went wrong in this thread's last failing call; "" at first. Valid until the next one. */
COWIRE_API const char *cowire_text(void);

/* Returns when routes are read and sockets bound. NULL = all defaults. */
COWIRE_API int cowire_open(const cowire_options *options, cowire_transmitter **out);
/* With a configuration file of the `cowire` command (TOML); -EINVAL, and the text has the line.
 * [multicast] is what all senders of it have, but for adopted sockets, which have their own; [intake]
 * is read, and not used. Warnings go to stderr. */
COWIRE_API int cowire_open_file(const char *path, cowire_transmitter **out);
/* Waits up to a second for datagrams on the way. Senders fail with -ESHUTDOWN from then on, and are
 * to be closed all the same, before or after. NULL is ignored. */
COWIRE_API void cowire_close(cowire_transmitter *tx);

/* Opens the socket that reserves its port; negative errno as said above. */
COWIRE_API int cowire_sender_open(cowire_transmitter *tx, const cowire_sender_options *options,
                                  cowire_sender **out);
/* Frames of it may be used, or released, still, by another sender of the same `tx`. */
COWIRE_API void cowire_sender_close(cowire_sender *s);
/* Host order. */
COWIRE_API uint16_t cowire_source_port(const cowire_sender *s);
/* The longest payload in bytes. */
COWIRE_API size_t cowire_payload_max(const cowire_sender *s);

/* Copies and submits datagrams in order. Returns how many were accepted, which are the first ones
 * (as sendmmsg(2)), or why not even the first: -EAGAIN (no room now), -EMSGSIZE (longer than
 * cowire_payload_max()), -EAFNOSUPPORT (no source of that family), -EINVAL, -ESHUTDOWN, -ECHILD. */
COWIRE_API ssize_t cowire_try_send(cowire_sender *s, const cowire_datagram *datagrams, size_t n);
/* The same with choices of these datagrams' own; NULL = none. Also -EINVAL, -EAFNOSUPPORT (a source
 * of another family than a destination) and -EOPNOTSUPP (a probe of an adopted socket). */
COWIRE_API ssize_t cowire_try_send_with(cowire_sender *s, const cowire_datagram *datagrams,
                                        size_t n, const cowire_datagram_options *options);
/* The same bytes to `n` addresses in order; results as above. `options` may be NULL. */
COWIRE_API ssize_t cowire_fan_out(cowire_sender *s, const void *data, size_t length,
                                  const cowire_address *addresses, size_t n,
                                  const cowire_datagram_options *options);

/* 0, or why there is none: -EAGAIN (no room now), -ESHUTDOWN, -ECHILD. */
COWIRE_API int cowire_frame_acquire(cowire_sender *s, cowire_frame *frame);
/* Submits frame->length bytes of it to `n` addresses. Returns how many were accepted; with all, the
 * frame is gone, else it stays the caller's, for a retry with the rest. */
COWIRE_API ssize_t cowire_frame_submit(cowire_sender *s, cowire_frame *frame,
                                       const cowire_address *addresses, size_t n);
/* The same with choices of these datagrams' own, as cowire_try_send_with(); NULL = none. */
COWIRE_API ssize_t cowire_frame_submit_with(cowire_sender *s, cowire_frame *frame,
                                            const cowire_address *addresses, size_t n,
                                            const cowire_datagram_options *options);
/* Gives it back unsent. One that is gone is ignored. */
COWIRE_API void cowire_frame_release(cowire_frame *frame);

/* Becomes readable when there is room again after -EAGAIN, and while errors may be waiting. After a
 * poll(2): call cowire_next_error() until -EAGAIN, which makes it unreadable, then send again. The
 * sender's: not to be read, written or closed.
 *
 * Of several threads one may make it unreadable which another, told -EAGAIN, is only about to wait
 * for: there may be room then, and nothing to say so. So where threads share a sender they poll with
 * a limit (some milliseconds) and send again, or one of them polls and tells the others. */
COWIRE_API int cowire_sender_fd(const cowire_sender *s);
/* 0 with the oldest error report, or why there is none: -EAGAIN (none now), -ECHILD. */
COWIRE_API int cowire_next_error(cowire_sender *s, cowire_error *error);
/* Reports that were dropped because nobody read them. */
COWIRE_API uint64_t cowire_errors_dropped(const cowire_sender *s);

/* Fills up to `n`, and returns how many there are: always the same ones in the same order for a
 * version of the library, "submitted" first. submitted == transmitted + kernel_path + refused +
 * lost_in_device + shed + on_the_way. */
COWIRE_API size_t cowire_counters(const cowire_transmitter *tx, cowire_counter *counters, size_t n);

/* What would become of a datagram, in the words of `ip route get` ("192.0.2.1 mark 7 dport 53"), as
 * a line of JSON as `cowire route get --json` prints it. Reads the kernel's state anew, which takes
 * milliseconds. Writes up to size - 1 bytes and a NUL; returns the length of all of it. */
COWIRE_API ssize_t cowire_explain(const char *question, char *json, size_t size);

#ifdef __cplusplus
}
#endif
#endif /* COWIRE_H */
