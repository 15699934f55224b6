/* SPDX-License-Identifier: MIT */
/* fuzz.h - what the targets share: numbers out of the input, and what must hold. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct input {
	const uint8_t *at, *end;
};

/* Of so many bytes, the first one on top; behind the end there are zeros. */
static inline uint64_t take(struct input *in, uint32_t bytes)
{
	uint64_t value = 0;

	while (bytes-- > 0)
		value = value << 8 | (in->at < in->end ? *in->at++ : 0);
	return value;
}

static inline uint32_t byte(struct input *in)
{
	return (uint32_t)take(in, 1);
}

static inline uint32_t word(struct input *in)
{
	return (uint32_t)take(in, 2);
}

static inline uint32_t below(struct input *in, uint32_t n)
{
	return (uint32_t)take(in, n > 256 ? 2 : 1) % n;
}

static inline void must(int is, const char *what)
{
	if (is)
		return;
	fprintf(stderr, "violated: %s\n", what);
	abort();
}

#endif
