/* SPDX-License-Identifier: MIT */
/* wire_port.c - the wire's packet sockets: packet(7), Documentation/networking/packet_mmap.rst. No BPF, so that it
 * works for anybody in a user namespace. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

/* 16384 frames of up to 1.9 KB: 50 ms of 300 kpps, which is how long a loaded machine may leave us without a core. */
#define RING_BYTES (32u << 20)
#define MIN_SLOT_BYTES 2048u
#define MIN_BLOCK_BYTES (64u << 10)
#define TAG_BYTES 4u
#define MACS_BYTES 12u
/* Between the slot's header and the frame, so that a tag can be put back. */
#define RESERVE_BYTES 16u

/* A receiver's backlog is full (ENOBUFS): it gets so long to make room, in naps. */
#define FULL_NS (2 * NSEC_PER_MSEC)
#define FULL_NAP_NS (20 * NSEC_PER_USEC)
/* Frames in flight fill the socket's buffer: as long as this we wait for the receiver to free one. */
#define SEND_TIMEOUT_US 100000
/* An interface that is down says so at once, again and again. */
#define DOWN_NAP_NS (1 * NSEC_PER_MSEC)

uint64_t wire_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC)};
}

void wire_nap(uint64_t ns)
{
	struct timespec t = timespec_of(ns);

	clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static int set(int fd, int option, const void *value, socklen_t len)
{
	return setsockopt(fd, SOL_PACKET, option, value, len);
}

static int bind_to(int fd, uint32_t ifindex, uint16_t protocol)
{
	struct sockaddr_ll at = {
	        .sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = (int)ifindex};

	return bind(fd, (struct sockaddr *)&at, sizeof(at));
}

static int open_in(struct wire_port *p, const struct xske_wire_config *config)
{
	int version = TPACKET_V2, one = 1, reserve = RESERVE_BYTES;
	struct packet_mreq promiscuous = {.mr_ifindex = (int)config->from_ifindex,
	                                  .mr_type = PACKET_MR_PROMISC};
	uint32_t need =
	        TPACKET_ALIGN(TPACKET2_HDRLEN) + 2 * RESERVE_BYTES + ETH_HLEN + config->max_frame_bytes;
	struct tpacket_req ring;
	uint32_t block;

	for (p->slot_bytes = MIN_SLOT_BYTES; p->slot_bytes < need;)
		p->slot_bytes *= 2;
	p->slots = RING_BYTES / p->slot_bytes;
	block = max_u32(p->slot_bytes, MIN_BLOCK_BYTES);
	ring = (struct tpacket_req){.tp_block_size = block,
	                            .tp_block_nr = RING_BYTES / block,
	                            .tp_frame_size = p->slot_bytes,
	                            .tp_frame_nr = p->slots};
	/* Protocol 0: nothing is received before it is bound. */
	p->in_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (p->in_fd < 0 || set(p->in_fd, PACKET_VERSION, &version, sizeof(version)) ||
	    set(p->in_fd, PACKET_RESERVE, &reserve, sizeof(reserve)) ||
	    set(p->in_fd, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) ||
	    set(p->in_fd, PACKET_RX_RING, &ring, sizeof(ring)))
		return -errno;
	p->ring_bytes = RING_BYTES;
	p->ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, p->in_fd, 0);
	if (p->ring == MAP_FAILED) {
		p->ring = NULL;
		return -errno;
	}
	if (bind_to(p->in_fd, config->from_ifindex, ETH_P_ALL) ||
	    set(p->in_fd, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)))
		return -errno;
	return 0;
}

static int open_out(struct wire_port *p, const struct xske_wire_config *config)
{
	int one = 1, bytes = 8 << 20;
	struct timeval timeout = {.tv_usec = SEND_TIMEOUT_US};

	p->out_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (p->out_fd < 0 || set(p->out_fd, PACKET_QDISC_BYPASS, &one, sizeof(one)) ||
	    setsockopt(p->out_fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) ||
	    bind_to(p->out_fd, config->to_ifindex, 0))
		return -errno;
	/* For root. Others have the system's default, which is enough for 200 small frames. */
	setsockopt(p->out_fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	return 0;
}

int port_open(struct wire_port *p, const struct xske_wire_config *config)
{
	int err;

	*p = (struct wire_port){.in_fd = -1, .out_fd = -1};
	err = open_out(p, config);
	return err ? err : open_in(p, config);
}

void port_close(struct wire_port *p)
{
	if (p->ring)
		munmap(p->ring, p->ring_bytes);
	if (p->in_fd >= 0)
		close(p->in_fd);
	if (p->out_fd >= 0)
		close(p->out_fd);
}

static struct tpacket2_hdr *slot(const struct wire_port *p, uint32_t i)
{
	return (struct tpacket2_hdr *)(p->ring + (size_t)((p->next + i) & (p->slots - 1)) * p->slot_bytes);
}

uint8_t *port_frame(struct wire_port *p, uint32_t i, uint32_t *len)
{
	struct tpacket2_hdr *h = slot(p, i);
	/* Acquire pairs with the kernel's write barrier: the frame is there. */
	uint32_t status = i < p->slots ? __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) : 0;
	uint8_t *frame = (uint8_t *)h + h->tp_mac;

	if (!(status & TP_STATUS_USER))
		return NULL;
	*len = h->tp_snaplen;
	if (status & TP_STATUS_VLAN_VALID && *len >= MACS_BYTES) {
		uint16_t type = status & TP_STATUS_VLAN_TPID_VALID ? h->tp_vlan_tpid : ETH_P_8021Q;
		const uint8_t tag[TAG_BYTES] = {(uint8_t)(type >> 8), (uint8_t)type,
		                                (uint8_t)(h->tp_vlan_tci >> 8), (uint8_t)h->tp_vlan_tci};

		frame -= TAG_BYTES;
		memmove(frame, frame + TAG_BYTES, MACS_BYTES);
		memcpy(frame + MACS_BYTES, tag, TAG_BYTES);
		*len += TAG_BYTES;
	}
	return frame;
}

void port_give_back(struct wire_port *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		__atomic_store_n(&slot(p, i)->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	p->next = (p->next + n) & (p->slots - 1);
}

uint32_t port_missed(struct wire_port *p)
{
	struct tpacket_stats stats = {0};
	socklen_t len = sizeof(stats);

	return getsockopt(p->in_fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) ? 0 : stats.tp_drops;
}

/* ENOBUFS: veth's receiver is full, down, or takes no frame so long. Only the first of these passes. */
static bool COLD try_again(struct wire_port *p, uint64_t *since_ns)
{
	uint64_t now = wire_now();

	if (errno == EINTR)
		return true;
	if (errno != ENOBUFS || p->refused)
		return false;
	if (!*since_ns)
		*since_ns = now;
	if (now - *since_ns > FULL_NS) {
		p->refused = true;
		return false;
	}
	wire_nap(FULL_NAP_NS);
	return true;
}

uint32_t port_send(struct wire_port *p, struct mmsghdr *messages, uint32_t n)
{
	uint32_t at = 0, taken = 0;
	uint64_t since_ns = 0;

	while (at < n) {
		int sent = sendmmsg(p->out_fd, messages + at, n - at, 0);

		if (sent > 0) {
			at += (uint32_t)sent;
			taken += (uint32_t)sent;
			p->refused = false;
			since_ns = 0;
		} else if (!try_again(p, &since_ns)) {
			at++;
			since_ns = 0;
		}
	}
	return taken;
}

void port_wait(struct wire_port *p, uint64_t ns)
{
	struct pollfd in = {.fd = p->in_fd, .events = POLLIN};
	struct timespec t = timespec_of(ns);
	int error;
	socklen_t len = sizeof(error);

	if (ppoll(&in, 1, &t, NULL) > 0 && in.revents & POLLERR) {
		getsockopt(p->in_fd, SOL_SOCKET, SO_ERROR, &error, &len); /* takes it away */
		wire_nap(min_u64(ns, DOWN_NAP_NS));
	}
}
