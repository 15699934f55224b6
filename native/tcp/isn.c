/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sys/random.h>

#include "tcp/isn.h"

#define ISN_TICK_NS 4000u /* RFC 6528, 3: the clock M */

static uint64_t rotate(uint64_t x, uint32_t by)
{
	return x << by | x >> (64 - by);
}

static void rounds(uint64_t v[4], uint32_t n)
{
	while (n--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32) + v[3];
		v[2] += v[1];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[2] = rotate(v[2], 32);
	}
}

static uint64_t word_of(const uint8_t *bytes, size_t n)
{
	uint64_t word = 0;

	for (size_t i = 0; i < n; i++)
		word |= (uint64_t)bytes[i] << 8 * i;
	return word;
}

static void take_word(uint64_t v[4], uint64_t word)
{
	v[3] ^= word;
	rounds(v, 2);
	v[0] ^= word;
}

uint64_t siphash24(const uint8_t key[16], const uint8_t *data, size_t len)
{
	uint64_t k0 = word_of(key, 8), k1 = word_of(key + 8, 8);
	/* "somepseudorandomlygeneratedbytes" */
	uint64_t v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
	                 k1 ^ 0x7465646279746573};
	size_t at;

	for (at = 0; at + 8 <= len; at += 8)
		take_word(v, word_of(data + at, 8));
	take_word(v, word_of(data + at, len - at) | (uint64_t)len << 56);
	v[2] ^= 0xff;
	rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

int isn_init(struct isn_secret *s)
{
	/* So few bytes come whole or not at all (getrandom(2)). */
	return getrandom(s, sizeof(*s), GRND_NONBLOCK) == (ssize_t)sizeof(*s) ? 0 : -errno;
}

uint32_t isn_of(const struct isn_secret *s, const uint8_t *tuple, uint32_t len, uint64_t now_ns)
{
	return (uint32_t)(now_ns / ISN_TICK_NS + siphash24(s->sequence_key, tuple, len));
}

uint32_t isn_timestamp_offset(const struct isn_secret *s, const uint8_t *tuple, uint32_t len)
{
	return (uint32_t)siphash24(s->timestamp_key, tuple, len);
}
