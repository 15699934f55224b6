/* SPDX-License-Identifier: MIT */
#include "tcp_scene.h"

#define CHUNKS 256u
#define MOST_TURNS 20000u

const uint8_t OURS[16] = {0x20, 1, 0xd, 0xb8, [15] = 1}, PEERS[16] = {0x20, 1, 0xd, 0xb8, [15] = 2};

/* ---- what leaves ---------------------------------------------------------------------------------- */

static void judge_payload(struct scene *s, uint32_t seq, const uint8_t *payload, uint32_t len)
{
	uint32_t at = seq - s->iss - 1;

	must((int32_t)(s->snd_end - seq) >= 0, "no gap in what is sent");
	must(at + len <= s->written, "nothing is sent that was not written");
	for (uint32_t i = 0; i < len; i++)
		must(payload[i] == stream_byte(at + i), "the stream's bytes at their place");
}

static void judge(struct scene *s, const struct fake_frame *f)
{
	uint8_t *ip = f->bytes + 14, *tcp = ip + ip_bytes(s);
	uint32_t ip_len, data, end;

	must(!f->bad && f->descs <= (s->multi_buffer ? XSKE_MAX_DESCS_PER_PACKET : 1u),
	     "descs that a kernel takes");
	must(f->len >= 60 && f->len <= 14 + s->config.mtu, "a frame's length");
	ip_len = (uint32_t)(s->six ? ip[4] << 8 | ip[5] : ip[2] << 8 | ip[3]) + (s->six ? 40 : 0);
	must(ip_len + 14 == f->len || (ip_len + 14 < 60 && f->len == 60), "padded to 60 bytes, and no more");
	must(s->six || csum_fold(csum_bytes(ip, 20)) == 0xffff, "IPv4's checksum");
	if (f->csum_requested)
		put_u16(f->bytes + f->csum_start + f->csum_offset,
		        (uint16_t)~csum_fold(
		                csum_bytes(f->bytes + f->csum_start, 14 + ip_len - f->csum_start)));
	data = (uint32_t)(tcp[12] >> 4) * 4;
	must(data >= 20 && ip_bytes(s) + data <= ip_len, "a header's length");
	must(csum_fold(pseudo_sum(s, ip, ip_len - ip_bytes(s)) + csum_bytes(tcp, ip_len - ip_bytes(s))) ==
	             0xffff,
	     "TCP's checksum");
	if (tcp[13] & SYN && !s->syn_seen) {
		s->syn_seen = 1;
		s->iss = get_u32(tcp + 4);
		s->snd_end = s->iss + 1;
	}
	if (!s->syn_seen && tcp[13] & RST) /* to an ACK of what we never sent */
		return;
	must(s->syn_seen, "SYN is the first");
	if (tcp[13] & ACK)
		s->rcv_nxt = get_u32(tcp + 8);
	end = get_u32(tcp + 4) + ip_len - ip_bytes(s) - data;
	if (ip_len > ip_bytes(s) + data)
		judge_payload(s, get_u32(tcp + 4), tcp + data, ip_len - ip_bytes(s) - data);
	if (tcp[13] & FIN) {
		must(end == s->iss + 1 + s->written, "FIN is behind everything");
		end++;
	}
	if ((int32_t)(end - s->snd_end) > 0)
		s->snd_end = end;
	for (uint32_t i = 20; i + 10 <= data;
	     i++) /* NOP, NOP, timestamps: whatever follows them is none of ours */
		if (tcp[i] == 8 && tcp[i + 1] == 10) {
			s->ts_val = get_u32(tcp + i + 2);
			break;
		}
}

void scene_run(struct scene *s, uint64_t ns)
{
	uint64_t until = fake_clock(s->kernel) + ns;

	must(fake_run(s->kernel, (fake_step_fn)xske_loop_step, s->loop, until, MOST_TURNS) >= 0,
	     "the loop comes to rest");
	for (uint32_t i = 0; i < fake_device_frames(s->device); i++)
		judge(s, fake_device_frame(s->device, i));
	fake_device_drop(s->device);
	must(!fake_device_changed(s->device), "nothing that is inflight changes");
	must(s->page.state < XSKE_LOOP_FAILED && !s->page.bad_completions, "the loop is well");
}

/* ---- a scene ---------------------------------------------------------------------------------------- */

static struct xske_arena *open_arena(struct scene *s, uint32_t quota, uint32_t flags)
{
	struct xske_arena_config config = {.quota_chunks = quota, .flags = flags};
	struct xske_arena *a;

	must(!xske_arena_open(s->umem, &config, &a), "an arena");
	return a;
}

static void set_up_loop(struct scene *s)
{
	struct xske_txq_config txq = {.kick = fake_kick, .fd = -1, .need_wakeup = 1};
	struct xske_loop_config loop = {
	        .clock = {.now_ns = fake_now, .sleep_ns = fake_sleep, .virtual_time = 1},
	        .progress_timeout_ns = 1ull << 60,
	        .drain_timeout_ns = 1000000000,
	        .wake_fd = -1,
	        .event_fd = -1};

	s->kernel = fake_create(RING, RING, UINT32_MAX - 7);
	fake_turn(s->kernel, 0);
	fake_policy(s->kernel, 1u << 30, 1);
	txq.kick_ctx = s->kernel;
	fake_rings(s->kernel, &txq.tx, &txq.cq);
	must(!xske_txq_create(s->umem, &txq, &s->txq), "a txq");
	s->loop_arena = open_arena(s, 1u << 20, XSKE_ARENA_LOOP_OWNED);
	loop.txq = s->txq;
	loop.arena = s->loop_arena;
	loop.counters = &s->page;
	loop.clock.ctx = s->kernel;
	must(!xske_loop_create(&loop, &s->loop), "a loop");
}

static void set_up_stack(struct scene *s, int offload)
{
	struct xske_rxq_config rxq = {.fd = -1};
	struct xske_tcp_config tcp = {.loop = s->loop,
	                              .queues = &rxq,
	                              .queue_count = 1,
	                              .max_connections = 2,
	                              .flags = (s->multi_buffer ? XSKE_TCP_MULTI_BUFFER : 0) |
	                                       (offload ? XSKE_TCP_OFFLOAD : 0),
	                              .counters = &s->tcp_counters};

	s->device =
	        fake_device_create(s->kernel, s->area, s->chunk_size, offload ? XSKE_TX_METADATA_BYTES : 0);
	s->rx = fake_rx_create(s->area, s->chunk_size, RING, HEADROOM, UINT32_MAX - 7);
	fake_rx_rings(s->rx, &rxq.rx, &rxq.fill);
	s->receive_arena = open_arena(s, RING, 0);
	tcp.receive_arena = s->receive_arena;
	must(!xske_arena_enter(s->receive_arena), "nobody else is in");
	must(!xske_tcp_create(&tcp, &s->tcp), "a stack");
	xske_arena_leave(s->receive_arena);
}

static void set_up_conn(struct scene *s, uint32_t how)
{
	uint8_t raw[80] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, s->six ? 0x86 : 0x08, s->six ? 0xdd : 0};
	uint8_t *ip = raw + 14;

	if (s->six) {
		ip[0] = 0x60;
		ip[6] = 6;
		ip[7] = 64;
		memcpy(ip + 8, OURS, 16);
		memcpy(ip + 24, PEERS, 16);
	} else {
		ip[0] = 0x45;
		ip[6] = 0x40;
		ip[8] = 64;
		ip[9] = 6;
		put_u32(ip + 12, 0xc0000201);
		put_u32(ip + 16, 0xc0000202);
	}
	s->conn_arena = open_arena(s, how & 1 ? 12 : 150, 0);
	s->config = (struct xske_tcp_conn_config){.arena = s->conn_arena,
	                                          .header = {.len = 14 + ip_bytes(s), .ip_offset = 14},
	                                          .local_port = LOCAL_PORT,
	                                          .remote_port = REMOTE_PORT,
	                                          .mtu = how & 2 ? 9000 : 1500,
	                                          .flags = how >> 2 & 7,
	                                          .congestion = how & 32 ? XSKE_TCP_CUBIC : XSKE_TCP_RENO,
	                                          .entries = how & 64 ? 4 : 64,
	                                          .receive_buffer_bytes = how & 128 ? 4096 : 65536,
	                                          .send_buffer_bytes = 200000,
	                                          .connect_timeout_ns = 20000000000,
	                                          .user_timeout_ns = how & 64 ? 30000000000 : 0,
	                                          .keepalive_idle_ns = 5000000000,
	                                          .keepalive_interval_ns = 1000000000,
	                                          .keepalive_probes = 3,
	                                          .time_wait_ns = 10000000000};
	memcpy(s->config.header.words, raw, s->config.header.len);
	must(!xske_tcp_open(s->tcp, &s->config, &s->conn), "a connection");
	must(!xske_tcp_connect(s->conn), "connects");
	scene_run(s, 0);
}

void scene_destroy(struct scene *s)
{
	struct xske_audit audit;

	fake_policy(s->kernel, 1u << 30, 1);
	while (fake_held(s->kernel) && !fake_complete(s->kernel, 0))
		;
	xske_tcp_abort(s->conn);
	scene_run(s, 100000000);
	must(xske_tcp_state(s->conn) == XSKE_TCP_CLOSED, "aborted is closed");
	if (s->alloc_room)
		xske_frag_unref(s->umem, NULL, s->alloc_addr);
	scene_run(s, 100000000);
	must(!xske_umem_audit(s->umem, 1, &audit) && audit.referenced == RING, "every chunk is back");
	must(!xske_loop_command(s->loop, XSKE_COMMAND_DRAIN, NULL), "the loop drains");
	scene_run(s, 3000000000);
	must(s->page.state == XSKE_LOOP_STOPPED, "and ends");
	xske_tcp_conn_destroy(s->conn);
	must(!xske_arena_enter(s->receive_arena), "nobody else is in");
	xske_tcp_destroy(s->tcp);
	xske_arena_leave(s->receive_arena);
	xske_loop_destroy(s->loop);
	must(!xske_arena_close(s->conn_arena) && !xske_arena_close(s->receive_arena) &&
	             !xske_arena_close(s->loop_arena),
	     "the arenas close");
	must(!xske_umem_audit(s->umem, 1, &audit) && audit.pooled == CHUNKS, "and everything is in the pool");
	fake_device_destroy(s->device);
	fake_rx_destroy(s->rx);
	xske_txq_destroy(s->txq);
	fake_destroy(s->kernel);
	xske_umem_destroy(s->umem);
	free(s->area);
	free(s);
}

struct scene *scene_create(uint32_t how, uint32_t more)
{
	struct scene *s = calloc(1, sizeof(*s));
	struct xske_umem_config config = {.chunk_size = how & 1 ? 4096 : 2048,
	                                  .metadata_len = how & 2 ? XSKE_TX_METADATA_BYTES : 0};

	s->chunk_size = config.chunk_size;
	s->six = how >> 2 & 1;
	s->multi_buffer = how >> 3 & 1;
	s->piece_bytes = how & 16 ? 200 : UINT32_MAX;
	config.len = (uint64_t)CHUNKS * s->chunk_size;
	config.area = s->area = aligned_alloc(4096, config.len);
	memset(s->area, 0xee, config.len);
	must(!xske_umem_create(&config, &s->umem), "a umem");
	set_up_loop(s);
	set_up_stack(s, how >> 1 & 1);
	set_up_conn(s, more);
	return s;
}
