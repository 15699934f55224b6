/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "csum.h"
#include "field.h"

void field_init(struct field *f, const struct xske_patch *p, uint64_t sequence,
                const uint64_t moves[FIELD_MOVES])
{
	uint64_t full = p->width == 8 ? UINT64_MAX : (1ull << p->width * 8) - 1;

	*f = (struct field){
	        .offset = p->offset,
	        .width = (uint8_t)p->width,
	        .kind = (uint8_t)p->kind,
	        .value_shift = (uint8_t)p->shift,
	        .plain = p->mask == full && !p->shift,
	        .csums = p->csums,
	        .csum_shift = p->width ? csum_shift(p->width, (uint32_t)p->offset) : 0,
	        .mask = p->width ? p->mask : UINT64_MAX,
	        .base = p->base,
	        .step = p->step,
	        .hold = p->hold ? p->hold : 1,
	        .key = p->key,
	        .values = p->values,
	};
	if (p->kind == XSKE_PATCH_RANDOM) {
		f->modulo = p->modulo; /* 0: all bits */
		return;
	}
	f->modulo = p->kind == XSKE_PATCH_LIST ? p->value_count : p->modulo;
	if (!f->modulo)
		f->modulo = UINT64_MAX;
	f->index = sequence / f->hold;
	f->rest = sequence % f->hold;
	if (f->modulo != UINT64_MAX)
		f->index %= f->modulo;
	for (uint32_t m = 0; m < FIELD_MOVES; m++) {
		f->by[m].index = moves[m] / f->hold;
		f->by[m].rest = moves[m] % f->hold;
		if (f->modulo != UINT64_MAX)
			f->by[m].index %= f->modulo;
	}
}

static inline void move_on(struct field *f, const struct field_step *by)
{
	f->rest += by->rest;
	f->index += by->index;
	if (f->rest >= f->hold) {
		f->rest -= f->hold;
		f->index++;
	}
	/* index + by + 1 is below 2 * modulo; a field that never wraps wraps with its 64 bits */
	if (f->index >= f->modulo && f->modulo != UINT64_MAX)
		f->index -= f->modulo;
}

static void index_column(struct field *f, uint64_t *index, uint32_t n, const struct field_step *by)
{
	uint64_t at = f->index, step = by->index, modulo = f->modulo;

	if (f->hold != 1) {
		for (uint32_t i = 0; i < n; i++) {
			index[i] = f->index;
			move_on(f, by);
		}
		return;
	}
	if (modulo == UINT64_MAX) {
		for (uint32_t i = 0; i < n; i++)
			index[i] = at + i * step;
		f->index = at + n * step;
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		index[i] = at;
		at += step;
		at -= at >= modulo ? modulo : 0;
	}
	f->index = at;
}

/* base + step * index, without an index where each packet has its own. */
static void range_column(struct field *f, uint64_t *value, uint32_t n, const struct field_step *by)
{
	uint64_t at = f->index, modulo = f->modulo, now = f->base + f->step * at;
	uint64_t step = f->step * by->index, back = f->step * modulo;

	if (f->hold != 1) {
		index_column(f, value, n, by);
		for (uint32_t i = 0; i < n; i++)
			value[i] = f->base + f->step * value[i];
		return;
	}
	if (modulo == UINT64_MAX) {
		for (uint32_t i = 0; i < n; i++)
			value[i] = now + i * step;
		f->index = at + n * by->index;
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		value[i] = now;
		at += by->index;
		now += step;
		if (at >= modulo) {
			at -= modulo;
			now -= back;
		}
	}
	f->index = at;
}

/* As field_random_below() for each of them, without the multiplications that most fields can do without. */
static void random_column(const struct field *f, uint64_t *value, uint32_t n, uint64_t sequence,
                          uint64_t stride)
{
	uint64_t at = f->key + sequence * FIELD_WEYL, step = stride * FIELD_WEYL, modulo = f->modulo;

	for (uint32_t i = 0; i < n; i++, at += step)
		value[i] = field_scramble(at);
	if (modulo && !(modulo & (modulo - 1))) {
		uint32_t shift = 64 - (uint32_t)__builtin_ctzll(modulo);

		for (uint32_t i = 0; i < n; i++)
			value[i] = shift < 64 ? value[i] >> shift : 0;
	} else if (modulo) {
		for (uint32_t i = 0; i < n; i++)
			value[i] = (uint64_t)((unsigned __int128)value[i] * modulo >> 64);
	}
	if (f->base || f->step != 1)
		for (uint32_t i = 0; i < n; i++)
			value[i] = f->base + f->step * value[i];
}

void field_values(struct field *f, struct column *col, uint32_t n, uint64_t sequence, uint64_t stride,
                  enum field_move move, uint64_t tai_ns)
{
	uint64_t *value = col->value;

	switch (f->kind) {
	case XSKE_PATCH_LIST:
		index_column(f, value, n, &f->by[move]);
		for (uint32_t i = 0; i < n; i++)
			value[i] = f->values[value[i]];
		break;
	case XSKE_PATCH_RANDOM:
		random_column(f, value, n, sequence, stride);
		break;
	case XSKE_PATCH_LENGTH:
		for (uint32_t i = 0; i < n; i++)
			value[i] = col->len[i] - f->base;
		break;
	case XSKE_PATCH_TIME:
		for (uint32_t i = 0; i < n; i++)
			value[i] = tai_ns;
		break;
	default:
		range_column(f, value, n, &f->by[move]);
	}
	if (f->plain)
		return;
	for (uint32_t i = 0; i < n; i++)
		value[i] = value[i] << f->value_shift & f->mask;
}

/* One function per width, so that the inner loops have no switch. `sum`: of the first checksum over it. */
#define STORE(name, type, swap)                                                                              \
	static inline void name(const struct field *f, uint8_t *const *at, uint64_t *value, uint64_t *sum,   \
	                        uint32_t n)                                                                  \
	{                                                                                                    \
		type keep = swap((type)~f->mask);                                                            \
		uint32_t shift = f->csum_shift;                                                              \
		int32_t offset = f->offset;                                                                  \
                                                                                                             \
		if (f->plain) {                                                                              \
			for (uint32_t i = 0; i < n; i++) {                                                   \
				type now = swap((type)value[i]);                                             \
                                                                                                             \
				memcpy(at[i] + offset, &now, sizeof(now));                                   \
				value[i] = (type)value[i];                                                   \
				sum[i] += csum_part(value[i], shift);                                        \
			}                                                                                    \
			return;                                                                              \
		}                                                                                            \
		for (uint32_t i = 0; i < n; i++) {                                                           \
			type now = swap((type)value[i]), old;                                                \
                                                                                                             \
			memcpy(&old, at[i] + offset, sizeof(old));                                           \
			now |= old & keep;                                                                   \
			memcpy(at[i] + offset, &now, sizeof(now));                                           \
			sum[i] += csum_part(value[i], shift);                                                \
		}                                                                                            \
	}
#define SAME(x) (x)

STORE(store_8, uint8_t, SAME)
STORE(store_16, uint16_t, __builtin_bswap16)
STORE(store_32, uint32_t, __builtin_bswap32)
STORE(store_64, uint64_t, __builtin_bswap64)

static void add_to_sums(const struct field *f, uint32_t csums, struct column *col, uint32_t n)
{
	for (; csums; csums &= csums - 1) {
		uint64_t *sum = col->sum[__builtin_ctz(csums)];

		for (uint32_t i = 0; i < n; i++)
			sum[i] += csum_part(col->value[i], f->csum_shift);
	}
}

/* Counted from the end: where it lies in the words of the sum depends on the packet's length. */
static void add_tail_to_sums(const struct field *f, struct column *col, uint32_t n)
{
	for (uint32_t csums = f->csums; csums; csums &= csums - 1) {
		uint64_t *sum = col->sum[__builtin_ctz(csums)];

		for (uint32_t i = 0; i < n; i++)
			sum[i] += csum_part(col->value[i],
			                    csum_shift(f->width, col->len[i] + (uint32_t)f->offset));
	}
}

void field_store(const struct field *f, struct column *col, uint32_t n)
{
	bool tail = f->offset < 0;
	uint8_t *const *at = tail ? col->end : col->head;
	/* Under no checksum, or counted from the end: into a column that nobody reads. */
	uint64_t *sum = f->csums && !tail ? col->sum[__builtin_ctz(f->csums)] : col->nowhere;

	switch (f->width) {
	case 0:
		add_to_sums(f, f->csums, col, n);
		return;
	case 1:
		store_8(f, at, col->value, sum, n);
		break;
	case 2:
		store_16(f, at, col->value, sum, n);
		break;
	case 4:
		store_32(f, at, col->value, sum, n);
		break;
	default:
		store_64(f, at, col->value, sum, n);
	}
	if (tail)
		add_tail_to_sums(f, col, n);
	else
		add_to_sums(f, f->csums & (f->csums - 1), col, n);
}
