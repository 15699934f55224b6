/* SPDX-License-Identifier: MIT */
/*
 * libFuzzer over a TCP connection between a hostile peer and a careless application: segments of any kind (right headers
 * around anything), broken frames, ICMP, calls in any order, time, and a device that completes when it likes and gives descs
 * that no kernel may give. Whatever happens: what leaves is a right segment of the stream that was written and leaves no gap, nothing that is inflight
 * changes, no chunk is lost, the loop comes to rest, and in the end everything is back.
 */
#include "tcp_scene.h"

#define LONGEST 9014u

/* ---- what comes ------------------------------------------------------------------------------------ */

static uint32_t write_options(struct scene *s, struct input *in, uint8_t *to, uint32_t kind)
{
	uint8_t *at = to;

	if (kind & 1) { /* timestamps that are nearly right */
		memcpy(at, (uint8_t[]){1, 1, 8, 10}, 4);
		put_u32(at + 4, 1000 + (uint32_t)(fake_clock(s->kernel) / 1000000) +
		                        (int8_t)byte(in) * (kind & 8 ? 256 : 1));
		put_u32(at + 8, kind & 16 ? 0 : s->ts_val - (uint32_t)(byte(in) & 15));
		at += 12;
	}
	if (kind & 2) { /* SACK blocks near what is outstanding */
		uint32_t n = 1 + byte(in) % 3;

		memcpy(at, (uint8_t[]){1, 1, 5, (uint8_t)(2 + 8 * n)}, 4);
		for (uint32_t i = 0; i < n; i++) {
			uint32_t start = s->snd_end - 100u * byte(in) + (int8_t)byte(in);

			put_u32(at + 4 + 8 * i, start);
			put_u32(at + 8 + 8 * i, start + 100u * byte(in) - 50);
		}
		at += 4 + 8 * n;
	}
	if (kind & 4) {
		memcpy(at, (uint8_t[]){2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7, 0, 0}, 12);
		put_u16(at + 2, kind & 32 ? word(in) : 1460);
		at[9] = (uint8_t)(kind & 64 ? byte(in) : 7);
		at += 12;
	}
	if (kind & 128 && at - to <= 36) {
		for (int i = 0; i < 4; i++)
			*at++ = (uint8_t)byte(in);
	}
	return (uint32_t)(at - to);
}

/* Ethernet and IP around `len` bytes of TCP that are there already. */
static uint32_t wrap(struct scene *s, uint8_t *frame, uint32_t len, uint32_t proto)
{
	uint8_t *ip = frame + 14;

	memcpy(frame, (uint8_t[]){2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}, 12);
	put_u16(frame + 12, s->six ? 0x86dd : 0x0800);
	memset(ip, 0, ip_bytes(s));
	if (s->six) {
		ip[0] = 0x60;
		put_u16(ip + 4, len);
		ip[6] = (uint8_t)proto;
		ip[7] = 64;
		memcpy(ip + 8, PEERS, 16);
		memcpy(ip + 24, OURS, 16);
	} else {
		ip[0] = 0x45;
		put_u16(ip + 2, 20 + len);
		ip[8] = 64;
		ip[9] = (uint8_t)proto;
		put_u32(ip + 12, 0xc0000202);
		put_u32(ip + 16, 0xc0000201);
		put_u16(ip + 10, (uint16_t)~csum_fold(csum_bytes(ip, 20)));
	}
	return 14 + ip_bytes(s) + len;
}

static void give(struct scene *s, struct input *in, uint8_t *frame, uint32_t len, uint32_t spoil)
{
	if (spoil & 1) /* a bit of it is another one */
		frame[word(in) % len] ^= (uint8_t)(1u << (byte(in) % 8));
	if (spoil & 2)
		len = 1 + word(in) % len;
	(void)fake_rx_give(s->rx, frame, len, s->piece_bytes);
}

static void send_segment(struct scene *s, struct input *in)
{
	static const uint8_t FLAGS[8] = {ACK, ACK | PSH, SYN | ACK, FIN | ACK, RST, RST | ACK, SYN, ACK};
	uint8_t frame[LONGEST] = {0}, *tcp = frame + 14 + ip_bytes(s);
	uint32_t how = byte(in), options, payload, sum, seq = s->rcv_nxt, ack = s->snd_end;
	uint8_t flags = (how & 15) == 15 ? (uint8_t)byte(in) : FLAGS[how & 7];

	if (flags & SYN && !s->rcv_nxt)
		seq = s->rcv_nxt = 0xfffffff0;
	if (how & 16)
		seq += (uint32_t)(int8_t)byte(in) * (byte(in) & 1 ? 1u : 700u);
	if (how & 32)
		ack -= (uint32_t)(int8_t)byte(in) * (byte(in) & 1 ? 1u : 350u);
	options = write_options(s, in, tcp + 20,
	                        flags & SYN ? (how & 64 ? byte(in) | 4 : 5)
	                        : how & 64  ? byte(in)
	                        : s->stamps ? 1
	                                    : 0);
	if (flags & SYN)
		s->stamps = !(how & 64);
	payload = how & 128 ? word(in) % 1600 : 0;
	put_u16(tcp, REMOTE_PORT);
	put_u16(tcp + 2, LOCAL_PORT);
	put_u32(tcp + 4, seq);
	put_u32(tcp + 8, ack);
	tcp[12] = (uint8_t)((20 + options) / 4 << 4);
	tcp[13] = flags;
	put_u16(tcp + 14, how & 64 ? word(in) : 0x4000);
	put_u16(tcp + 18, flags & 32 ? 1 : 0);
	memset(tcp + 20 + options, 'x', payload);
	wrap(s, frame, 20 + options + payload, 6);
	sum = csum_fold(pseudo_sum(s, frame + 14, 20 + options + payload));
	put_u16(tcp + 16, sum);
	if (!(how & 64) || byte(in) & 1) /* else as over a veth: the device would do it */
		put_u16(tcp + 16, (uint16_t)~csum_fold(csum_bytes(tcp, 20 + options + payload)));
	give(s, in, frame, 14 + ip_bytes(s) + 20 + options + payload, how & 64 ? byte(in) & 3 : 0);
}

static void send_icmp(struct scene *s, struct input *in)
{
	uint8_t frame[200] = {0}, *icmp = frame + 14 + ip_bytes(s), *quoted = icmp + 8,
	        *tcp = quoted + ip_bytes(s);
	uint32_t how = byte(in), len = 8 + ip_bytes(s) + 8;

	icmp[0] = s->six ? (how & 1 ? 2 : 1) : 3;
	icmp[1] = (uint8_t)(s->six ? how >> 1 & 3 : how & 1 ? 4 : how >> 1 & 15);
	put_u16(icmp + 6, how & 32 ? word(in) : 1280);
	wrap(s, frame, 0, 6);
	memcpy(quoted, frame + 14, ip_bytes(s));
	memcpy(quoted + (s->six ? 8 : 12), frame + 14 + (s->six ? 24 : 16), s->six ? 16 : 4);
	memcpy(quoted + (s->six ? 24 : 16), frame + 14 + (s->six ? 8 : 12), s->six ? 16 : 4);
	put_u16(tcp, LOCAL_PORT);
	put_u16(tcp + 2, REMOTE_PORT);
	put_u32(tcp + 4, s->snd_end - (how & 64 ? word(in) : 1));
	wrap(s, frame, len, s->six ? 58 : 1);
	put_u16(icmp + 2, (uint16_t)~csum_fold(csum_bytes(icmp, len) +
	                                       (s->six ? csum_bytes(frame + 22, 32) + len + 58 : 0)));
	give(s, in, frame, 14 + ip_bytes(s) + len, how & 128 ? byte(in) & 3 : 0);
}

static void send_garbage(struct scene *s, struct input *in)
{
	uint8_t frame[64] = {0};
	uint32_t len = 1 + byte(in) % sizeof(frame);

	for (uint32_t i = 0; i < len; i++)
		frame[i] = (uint8_t)byte(in);
	give(s, in, frame, len, 0);
}

/* Of any chunk, or none, and any length: a broken kernel's. */
static void send_desc(struct scene *s, struct input *in)
{
	struct xske_ring rx, fill;
	uint32_t how = byte(in);
	struct xske_desc d = {.addr = take(in, 3), .len = word(in), .options = how & 1};

	fake_rx_rings(s->rx, &rx, &fill);
	if (*rx.producer - *rx.consumer > rx.mask)
		return;
	if (how & 2) /* one that it could have */
		d.addr = ((uint64_t *)fill.ring)[d.addr & fill.mask] + HEADROOM;
	else if (how & 4)
		d.addr <<= 40;
	if (how & 8)
		d.len %= s->chunk_size - HEADROOM + 1;
	((struct xske_desc *)rx.ring)[*rx.producer & rx.mask] = d;
	*rx.producer += 1;
}

/* ---- the application -------------------------------------------------------------------------------- */

static void write_some(struct scene *s, uint32_t len)
{
	uint8_t bytes[20000];
	int64_t taken;

	for (uint32_t i = 0; i < len; i++)
		bytes[i] = stream_byte(s->written + i);
	taken = xske_tcp_write(s->conn, bytes, len);
	must(taken <= (int64_t)len, "no more is taken than there was");
	if (taken > 0)
		s->written += (uint32_t)taken;
}

static void fill_one(struct scene *s, uint32_t share)
{
	uint32_t len;

	if (!s->alloc_room) {
		if (xske_tcp_alloc(s->conn, &s->alloc_addr, &s->alloc_room))
			s->alloc_room = 0;
		return;
	}
	len = share * s->alloc_room / 256 + 1;
	for (uint32_t i = 0; i < len; i++)
		s->area[s->alloc_addr + i] = stream_byte(s->written + i);
	if (xske_tcp_submit(s->conn, s->alloc_addr, len)) {
		xske_frag_unref(s->umem, NULL, s->alloc_addr);
		len = 0;
	}
	s->written += len;
	s->alloc_room = 0;
}

static void open_again(struct scene *s)
{
	if (xske_tcp_state(s->conn) != XSKE_TCP_CLOSED)
		return;
	scene_run(s, 0); /* its last words */
	if (s->alloc_room)
		xske_frag_unref(s->umem, NULL, s->alloc_addr);
	xske_tcp_conn_destroy(s->conn);
	s->alloc_room = s->syn_seen = s->stamps = 0;
	s->written = s->rcv_nxt = 0;
	must(!xske_tcp_open(s->tcp, &s->config, &s->conn), "it opens again");
	must(!xske_tcp_connect(s->conn), "and connects");
	scene_run(
	        s,
	        0); /* before anything comes that fits by chance: the clock of its sequence numbers stands still */
}

static void act(struct scene *s, struct input *in)
{
	static const uint64_t WAITS_NS[8] = {0,         100000,     1000000,     10000000,
	                                     250000000, 1100000000, 70000000000, 0};
	uint8_t to[5000];
	uint32_t what = byte(in), n;

	switch (what % 16) {
	case 0:
	case 1: /* with something inflight the loop looks every 50 us */
		scene_run(s, s->holds && (what >> 4 & 7) > 4 ? WAITS_NS[4] : WAITS_NS[what >> 4 & 7]);
		break;
	case 2:
		write_some(s, word(in) % 20000);
		break;
	case 3:
		(void)xske_tcp_read(s->conn, to, sizeof(to) >> (what >> 4));
		break;
	case 4:
		fill_one(s, byte(in));
		break;
	case 5:
		n = what >> 4;
		if (n == 0)
			xske_tcp_abort(s->conn);
		else if (n == 1)
			xske_tcp_close(s->conn);
		else if (n < 4)
			(void)xske_tcp_shutdown(s->conn);
		else
			open_again(s);
		break;
	case 6:
		s->holds = what >> 4 & 1;
		fake_policy(s->kernel, 1u << 30, !s->holds);
		break;
	case 7:
		n = fake_held(s->kernel);
		if (n && s->holds)
			(void)fake_complete(s->kernel, byte(in) % n);
		break;
	case 8:
		send_icmp(s, in);
		break;
	case 9:
		if (what >> 4 == 15)
			send_garbage(s, in);
		else if (what >> 4 == 14)
			send_desc(s, in);
		else
			xske_tcp_await(s->conn, what >> 4);
		break;
	default:
		send_segment(s, in);
		if (what & 16)
			scene_run(s, 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	uint32_t how = byte(&in), more = byte(&in);
	struct scene *s = scene_create(how, more);

	while (in.at < in.end)
		act(s, &in);
	scene_destroy(s);
	return 0;
}
