/* SPDX-License-Identifier: MIT */
/*
 * What the engine is compared with: packet sockets at their best, past the qdisc (PACKET_QDISC_BYPASS).
 * Usage: packet_sender sendmmsg|ring INTERFACE CPU FRAME_FILE; CPU: -1 for any. Until it is killed.
 * `ring`: a PACKET_TX_RING whose slots hold the frame from the start, so only their status is written per packet.
 * Documentation/networking/packet_mmap.rst
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

#define BATCH 64u /* frames of one sendmmsg: as many as the engine posts at once */
/* 64 to 1024, kicked in parts or whole, are alike up to 1514 bytes; of 64 KiB frames more slots cost up to a quarter, as
 * their pages leave the cache. TPACKET_V3 is as fast as V2. */
#define SLOTS 64u
#define PAGE_BYTES 4096u

static unsigned char frame[MOST_FRAME_BYTES + 1];
static unsigned frame_bytes;

static void check_retry(void)
{
	check(errno != ENOBUFS && errno != EAGAIN && errno != EINTR, "send");
}

/* Protocol 0: it is never handed what arrives. */
static int open_socket(const char *interface)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0), on = 1;

	check(fd < 0, "socket");
	check(!to.sll_ifindex, interface);
	check(bind(fd, (struct sockaddr *)&to, sizeof(to)), "bind");
	check(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)), "PACKET_QDISC_BYPASS");
	return fd;
}

static void send_batches(int fd)
{
	struct iovec vector = {frame, frame_bytes};
	struct mmsghdr batch[BATCH] = {0};

	for (unsigned i = 0; i < BATCH; i++)
		batch[i].msg_hdr = (struct msghdr){.msg_iov = &vector, .msg_iovlen = 1};
	for (;;)
		if (sendmmsg(fd, batch, BATCH, 0) < 0)
			check_retry();
}

struct ring {
	unsigned char *area;
	unsigned slot_bytes;
};

static struct tpacket2_hdr *slot(const struct ring *ring, unsigned at)
{
	return (struct tpacket2_hdr *)(void *)(ring->area + (size_t)at * ring->slot_bytes);
}

static struct ring map_ring(int fd)
{
	const unsigned data_at = TPACKET2_HDRLEN - sizeof(struct sockaddr_ll); /* net/packet/af_packet.c */
	const int version = TPACKET_V2;
	struct ring ring = {.slot_bytes = PAGE_BYTES / SLOTS};
	struct tpacket_req request;

	while (ring.slot_bytes < data_at + frame_bytes)
		ring.slot_bytes *= 2;
	request = (struct tpacket_req){.tp_frame_size = ring.slot_bytes, .tp_frame_nr = SLOTS};
	request.tp_block_size = ring.slot_bytes < PAGE_BYTES ? PAGE_BYTES : ring.slot_bytes;
	request.tp_block_nr = SLOTS * ring.slot_bytes / request.tp_block_size;
	check(setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)), "PACKET_VERSION");
	check(setsockopt(fd, SOL_PACKET, PACKET_TX_RING, &request, sizeof(request)), "PACKET_TX_RING");
	ring.area = mmap(NULL, (size_t)SLOTS * ring.slot_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(ring.area == MAP_FAILED, "mmap");
	for (unsigned i = 0; i < SLOTS; i++) {
		slot(&ring, i)->tp_len = frame_bytes;
		memcpy((unsigned char *)slot(&ring, i) + data_at, frame, frame_bytes);
	}
	return ring;
}

static void send_ring(int fd)
{
	struct ring ring = map_ring(fd);

	for (unsigned at = 0;;) {
		for (unsigned n = 0; n < SLOTS; n++) {
			struct tpacket2_hdr *next = slot(&ring, at);
			unsigned status = __atomic_load_n(&next->tp_status, __ATOMIC_ACQUIRE);

			errno = EIO;
			check(status & TP_STATUS_WRONG_FORMAT, "TP_STATUS_WRONG_FORMAT");
			if (status != TP_STATUS_AVAILABLE)
				break;
			__atomic_store_n(&next->tp_status, TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
			at = (at + 1) % SLOTS;
		}
		if (send(fd, NULL, 0, MSG_DONTWAIT) < 0)
			check_retry();
	}
}

int main(int argc, char **argv)
{
	int fd;

	errno = EINVAL;
	check(argc != 5, "arguments");
	pin(atoi(argv[3]));
	frame_bytes = read_frame(argv[4], frame);
	fd = open_socket(argv[2]);
	if (!strcmp(argv[1], "sendmmsg"))
		send_batches(fd);
	if (!strcmp(argv[1], "ring"))
		send_ring(fd);
	errno = EINVAL;
	check(1, argv[1]);
}
