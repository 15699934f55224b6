/* SPDX-License-Identifier: MIT */
/*
 * The machine's limit: one frame posted for ever from the same chunk, no allocator, no pacing, no statistics.
 * Same system calls, same batch and same tx budget as the engine, so what is left is what the engine costs.
 * Usage: minimal INTERFACE QUEUE CPU SECONDS FRAME_FILE [copy|zerocopy COUNT]; SECONDS: "inf" until it is killed. A frame
 * that is larger than a chunk goes out in several descs. Prints completed packets and seconds. With a COUNT it ends there,
 * sleeps where it can make no progress, and stands between marks.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <xdp/xsk.h>

#include "mark.h"
#include "common.h"

#define RING 2048u
#define BATCH 64u
#define CHUNK 4096u
#define CHUNKS 64u
#define XDP_MAX_TX_SKB_BUDGET 9 /* include/uapi/linux/if_xdp.h, Linux 6.17 */
#define XDP_USE_SG (1 << 4)     /* Linux 6.6, as the next one */
#define XDP_PKT_CONTD (1 << 0)

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The frame at the start of the umem in descs of a chunk at most; how many. */
static unsigned cut(struct xdp_desc *descs, unsigned bytes)
{
	unsigned n = 0;

	for (unsigned at = 0; at < bytes; at += CHUNK, n++) {
		unsigned left = bytes - at;

		descs[n] = (struct xdp_desc){.addr = at,
		                             .len = left < CHUNK ? left : CHUNK,
		                             .options = left > CHUNK ? XDP_PKT_CONTD : 0};
	}
	return n;
}

int main(int argc, char **argv)
{
	struct xsk_umem_config umem_config = {.fill_size = RING, .comp_size = RING, .frame_size = CHUNK};
	struct xsk_socket_config config = {.tx_size = RING,
	                                   .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
	                                   .bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP};
	struct xsk_ring_prod fill = {0}, tx = {0};
	struct xsk_ring_cons cq = {0};
	struct xsk_umem *umem;
	struct xsk_socket *xsk;
	unsigned long long sent = 0, done = 0, count; /* descs */
	unsigned budget = RING, idx, per_frame, batched = 0;
	struct xdp_desc batch[BATCH];
	double start, end, deadline;
	void *area;

	errno = EINVAL;
	check(argc != 6 && argc != 8, "arguments");
	if (argc == 8 && !strcmp(argv[6], "zerocopy"))
		config.bind_flags = XDP_ZEROCOPY | XDP_USE_NEED_WAKEUP;
	pin(atoi(argv[3]));
	area = mmap(NULL, CHUNKS * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(area == MAP_FAILED, "mmap");
	per_frame = cut(batch, read_frame(argv[5], area));
	for (; batched + per_frame <= BATCH; batched += per_frame)
		memmove(batch + batched, batch, per_frame * sizeof(*batch));
	if (per_frame > 1)
		config.bind_flags |= XDP_USE_SG;
	count = argc == 8 ? strtoull(argv[7], NULL, 10) * per_frame : ~0ull;
	/* The queue of a process that has just ended stays taken for a moment. */
	for (int tries = 0;; tries++) {
		check(xsk_umem__create(&umem, area, CHUNKS * CHUNK, &fill, &cq, &umem_config),
		      "xsk_umem__create");
		if (!xsk_socket__create(&xsk, argv[1], (unsigned)atoi(argv[2]), umem, NULL, &tx, &config))
			break;
		check(tries == 200, "xsk_socket__create");
		xsk_umem__delete(umem);
		usleep(10000);
	}
	setsockopt(xsk_socket__fd(xsk), SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget, sizeof(budget));

	start = now_s();
	end = start;
	deadline = start + atof(argv[4]);
	MARK(MARK_BEGIN);
	while ((end < deadline && sent < count) || done < sent) {
		unsigned n = xsk_ring_cons__peek(&cq, RING, &idx);
		unsigned long long before = sent;

		if (n) {
			xsk_ring_cons__release(&cq, n);
			done += n;
		}
		if (end < deadline && sent < count && sent - done + batched <= RING &&
		    xsk_ring_prod__reserve(&tx, batched, &idx)) {
			for (unsigned i = 0; i < batched; i++)
				*xsk_ring_prod__tx_desc(&tx, idx + i) = batch[i];
			xsk_ring_prod__submit(&tx, batched);
			sent += batched;
		}
		if (count != ~0ull && !n && sent == before)
			usleep(50);
		if (sendto(xsk_socket__fd(xsk), NULL, 0, MSG_DONTWAIT, NULL, 0) < 0)
			check(errno != EAGAIN && errno != EBUSY && errno != ENOBUFS, "sendto");
		end = now_s();
		if (end > deadline + 2)
			break;
	}
	MARK(MARK_END);
	printf("%llu %.6f\n", done / per_frame, end - start);
	xsk_socket__delete(xsk);
	xsk_umem__delete(umem);
	return done != sent;
}
