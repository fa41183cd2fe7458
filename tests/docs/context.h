/* SPDX-License-Identifier: Apache-2.0 */
/* What the guide's snippets in C use without having made it; declared only. */
#include <cowire.h>

extern cowire_transmitter *tx;
extern cowire_sender *s;
extern cowire_address to;
extern cowire_address peers[200];
extern const void *bytes;
extern size_t length;
