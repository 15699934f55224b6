/* SPDX-License-Identifier: MIT */
/* tcp_scene.h - one connection over heap rings, and an observer on its wire who knows the stream that is written. */
#ifndef TCP_SCENE_H
#define TCP_SCENE_H

#include "csum.h"
#include "fake_device.h"
#include "fuzz.h"

#define RING 32u
#define HEADROOM 64u
#define LOCAL_PORT 40000u
#define REMOTE_PORT 5001u

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

struct scene {
	struct xske_umem *umem;
	struct xske_arena *loop_arena, *receive_arena, *conn_arena;
	struct xske_txq *txq;
	struct xske_loop *loop;
	struct xske_tcp *tcp;
	struct xske_tcp_conn *conn;
	struct fake_kernel *kernel;
	struct fake_device *device;
	struct fake_rx *rx;
	struct xske_counters page;
	struct xske_tcp_counters tcp_counters;
	struct xske_tcp_conn_config config;
	uint8_t *area;
	uint32_t chunk_size, piece_bytes;
	int six, multi_buffer, holds;
	/* As an observer on the wire sees the connection. */
	uint32_t iss, snd_end, rcv_nxt, ts_val;
	int syn_seen, stamps;
	uint32_t written; /* bytes of the stream */
	uint64_t alloc_addr;
	uint32_t alloc_room;
};

extern const uint8_t OURS[16], PEERS[16];

/* how: bits of what it is like. */
struct scene *scene_create(uint32_t how, uint32_t more);
/* Everything is aborted and completed, and every chunk is back. */
void scene_destroy(struct scene *s);
/* So much time passes; what leaves is judged. */
void scene_run(struct scene *s, uint64_t ns);

/* The stream's byte number `at`. */
static inline uint8_t stream_byte(uint32_t at)
{
	return (uint8_t)(at * 151 + (at >> 8) * 7);
}

static inline uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void put_u16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void put_u32(uint8_t *p, uint32_t v)
{
	put_u16(p, v >> 16);
	put_u16(p + 2, v & 0xffff);
}

static inline uint32_t ip_bytes(const struct scene *s)
{
	return s->six ? 40 : 20;
}

static inline uint64_t pseudo_sum(const struct scene *s, const uint8_t *ip, uint32_t len)
{
	return csum_bytes(ip + (s->six ? 8 : 12), s->six ? 32 : 8) + len + 6;
}

#endif
