/* SPDX-License-Identifier: MIT */
/* check_pieces.c - check_frame() for tests: every piece is a copy of exactly its size. */
#include <stdlib.h>
#include <string.h>

#include "check.h"

XSKE_API void pieces_check(struct xske_check *c, const uint8_t *bytes, const uint32_t *lens, uint32_t n,
                           uint64_t arrived_ns, uint32_t flags)
{
	struct piece *pieces = calloc(n ? n : 1, sizeof(*pieces));

	for (uint32_t i = 0; i < n; i++) {
		uint8_t *copy = malloc(lens[i]);

		memcpy(copy, bytes, lens[i]);
		pieces[i] = (struct piece){copy, lens[i]};
		bytes += lens[i];
	}
	check_frame(c, pieces, n, arrived_ns, flags);
	for (uint32_t i = 0; i < n; i++)
		free((void *)pieces[i].bytes);
	free(pieces);
}
