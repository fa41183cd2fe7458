/* SPDX-License-Identifier: Apache-2.0 */
/* c_sender ADDRESS PORT COUNT: sends numbered datagrams through the C interface, in both of its
 * ways: copied from the caller's memory, and written in place. Waits with poll(2) where there is no
 * room, and tells what became of all of them. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <cowire.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what, long result) {
  fprintf(stderr, "c_sender: %s: %s (%s)\n", what, cowire_text(), strerror((int)-result));
  return 1;
}

static int parse_address(const char *text, const char *port, cowire_address *to) {
  memset(to, 0, sizeof *to);
  to->v4.sin_port = htons((uint16_t)atoi(port)); /* At the same place in both families. */
  to->any.sa_family = AF_INET;
  if (inet_pton(AF_INET, text, &to->v4.sin_addr) == 1) return 1;
  to->any.sa_family = AF_INET6;
  return inet_pton(AF_INET6, text, &to->v6.sin6_addr) == 1;
}

/* What the kernel or the network said about earlier datagrams. */
static void tell_errors(cowire_sender *s) {
  cowire_error e;
  while (cowire_next_error(s, &e) == 0)
    fprintf(stderr, "c_sender: %s says: %s\n", e.from_network ? "the network" : "this host",
            strerror(e.number));
}

/* Waits until there is room, or something to tell. */
static void wait_for_news(cowire_sender *s) {
  struct pollfd news = {cowire_sender_fd(s), POLLIN, 0};
  poll(&news, 1, 1000);
  tell_errors(s);
}

static long send_copied(cowire_sender *s, const cowire_address *to, int number) {
  char text[32];
  cowire_datagram d = {text, 0, *to, 0};
  long accepted;
  d.length = (size_t)snprintf(text, sizeof text, "datagram %d", number);
  while ((accepted = cowire_try_send(s, &d, 1)) == -EAGAIN) wait_for_news(s);
  return accepted;
}

static long send_in_place(cowire_sender *s, const cowire_address *to, int number) {
  cowire_frame frame;
  long accepted;
  int result;
  while ((result = cowire_frame_acquire(s, &frame)) == -EAGAIN) wait_for_news(s);
  if (result != 0) return result;
  frame.length = (size_t)snprintf(frame.data, frame.capacity, "datagram %d", number);
  accepted = cowire_frame_submit(s, &frame, to, 1);
  cowire_frame_release(&frame); /* Nothing, where it was accepted. */
  return accepted;
}

static void tell_counters(const cowire_transmitter *tx) {
  cowire_counter counters[8];
  size_t i, known = cowire_counters(tx, counters, 8);
  for (i = 0; i < known && i < 8; ++i)
    printf("%s %llu\n", counters[i].name, (unsigned long long)counters[i].value);
}

int main(int argc, char **argv) {
  cowire_options options = COWIRE_OPTIONS_INIT;
  cowire_sender_options sender = COWIRE_SENDER_OPTIONS_INIT;
  cowire_transmitter *tx = NULL;
  cowire_sender *s = NULL;
  cowire_address to;
  long result;
  int i;

  if (argc != 4 || !parse_address(argv[1], argv[2], &to)) {
    fprintf(stderr, "usage: c_sender ADDRESS PORT COUNT\n");
    return 2;
  }
  options.frames = 1024;
  if ((result = cowire_open(&options, &tx)) != 0) return failed("opening", result);
  if ((result = cowire_sender_open(tx, &sender, &s)) != 0) return failed("a sender", result);
  for (i = 0; i < atoi(argv[3]); ++i) {
    result = i % 2 == 0 ? send_copied(s, &to, i) : send_in_place(s, &to, i);
    if (result < 0) return failed("sending", result);
  }
  while (cowire_counters(tx, NULL, 0) != 0) { /* Until nothing is on the way. */
    cowire_counter counters[7];
    cowire_counters(tx, counters, 7);
    if (counters[6].value == 0) break;
    wait_for_news(s);
  }
  tell_errors(s);
  tell_counters(tx);
  cowire_sender_close(s);
  cowire_close(tx);
  return 0;
}
