/* SPDX-License-Identifier: Apache-2.0 */
/* A program of somebody who has libcowire installed. */
#include <cowire.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  char json[1024];
  if (strcmp(cowire_version(), VERSION) != 0) return 1;
  if (cowire_explain("127.0.0.1", json, sizeof json) <= 0) return 2;
  return puts(json) == EOF;
}
