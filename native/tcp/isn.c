/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "isn.h"

static uint64_t rotate(uint64_t x, uint32_t by)
{
	return x << by | x >> (64 - by);
}

static void rounds(uint64_t v[4], int n)
{
	while (n--) {
		v[0] += v[1];
		v[2] += v[3];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] = rotate(v[0], 32);
		v[2] += v[1];
		v[0] += v[3];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] = rotate(v[2], 32);
	}
}

static uint64_t little_endian(const uint8_t *bytes, size_t n)
{
	uint64_t word = 0;

	for (size_t i = 0; i < n; i++)
		word |= (uint64_t)bytes[i] << 8 * i;
	return word;
}

uint64_t siphash24(const uint8_t *key, const uint8_t *data, size_t len)
{
	uint64_t k0 = little_endian(key, 8), k1 = little_endian(key + 8, 8), word;
	uint64_t v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261,
	                 k1 ^ 0x7465646279746573};
	size_t at = 0;

	for (; at + 8 <= len; at += 8) {
		word = little_endian(data + at, 8);
		v[3] ^= word;
		rounds(v, 2);
		v[0] ^= word;
	}
	word = little_endian(data + at, len - at) | (uint64_t)len << 56;
	v[3] ^= word;
	rounds(v, 2);
	v[0] ^= word;
	v[2] ^= 0xff;
	rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

int isn_init(struct isn_secret *s)
{
	return getrandom(s->key, sizeof(s->key), 0) == sizeof(s->key) ? 0 : -errno;
}

uint32_t isn_of(const struct isn_secret *s, const uint8_t *tuple, uint32_t len, uint64_t now_ns)
{
	return (uint32_t)(now_ns / 4000) + (uint32_t)siphash24(s->key, tuple, len);
}

/* Another half of the same hash would do; another key is easier to trust. */
uint32_t isn_timestamp_offset(const struct isn_secret *s, const uint8_t *tuple, uint32_t len)
{
	struct isn_secret other = *s;

	other.key[0] ^= 1;
	return (uint32_t)siphash24(other.key, tuple, len);
}
