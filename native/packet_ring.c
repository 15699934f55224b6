/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "packet_ring.h"
#include "util.h"

/* 16384 frames of up to 1.9 KB: 50 ms of 300 kpps, which is how long a loaded machine may leave us without a core. */
#define RING_BYTES (32u << 20)
#define MIN_SLOT_BYTES 2048u
#define MIN_BLOCK_BYTES (64u << 10)
#define TAG_BYTES 4u
#define MACS_BYTES 12u
/* Between the slot's header and the frame, so that a tag can be put back. */
#define RESERVE_BYTES 16u

static int set(int fd, int option, const void *value, socklen_t len)
{
	return setsockopt(fd, SOL_PACKET, option, value, len);
}

static struct tpacket_req shape(struct packet_ring *r, uint32_t max_frame_bytes)
{
	uint32_t need = TPACKET_ALIGN(TPACKET2_HDRLEN) + 2 * RESERVE_BYTES + ETH_HLEN + max_frame_bytes;
	uint32_t block;

	for (r->slot_bytes = MIN_SLOT_BYTES; r->slot_bytes < need;)
		r->slot_bytes *= 2;
	r->slots = RING_BYTES / r->slot_bytes;
	block = max_u32(r->slot_bytes, MIN_BLOCK_BYTES);
	return (struct tpacket_req){.tp_block_size = block,
	                            .tp_block_nr = RING_BYTES / block,
	                            .tp_frame_size = r->slot_bytes,
	                            .tp_frame_nr = r->slots};
}

int packet_ring_open(struct packet_ring *r, uint32_t ifindex, uint32_t max_frame_bytes,
                     const struct sock_fprog *filter, bool promiscuous)
{
	struct sockaddr_ll at = {
	        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)ifindex};
	struct packet_mreq membership = {.mr_ifindex = (int)ifindex, .mr_type = PACKET_MR_PROMISC};
	int version = TPACKET_V2, one = 1, reserve = RESERVE_BYTES;
	struct tpacket_req req = shape(r, max_frame_bytes);

	r->memory = NULL;
	r->next = 0;
	/* Protocol 0: nothing is received before it is bound. */
	r->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (r->fd < 0 || set(r->fd, PACKET_VERSION, &version, sizeof(version)) ||
	    set(r->fd, PACKET_RESERVE, &reserve, sizeof(reserve)) ||
	    set(r->fd, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) ||
	    set(r->fd, PACKET_RX_RING, &req, sizeof(req)))
		return -errno;
	r->bytes = RING_BYTES;
	r->memory = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	if (r->memory == MAP_FAILED) {
		r->memory = NULL;
		return -errno;
	}
	if (filter && setsockopt(r->fd, SOL_SOCKET, SO_ATTACH_FILTER, filter, sizeof(*filter)))
		return -errno;
	if (bind(r->fd, (struct sockaddr *)&at, sizeof(at)) ||
	    (promiscuous && set(r->fd, PACKET_ADD_MEMBERSHIP, &membership, sizeof(membership))))
		return -errno;
	return 0;
}

void packet_ring_close(struct packet_ring *r)
{
	if (r->memory)
		munmap(r->memory, r->bytes);
	if (r->fd >= 0)
		close(r->fd);
	r->memory = NULL;
	r->fd = -1;
}

static struct tpacket2_hdr *slot(const struct packet_ring *r, uint32_t i)
{
	return (struct tpacket2_hdr *)(r->memory + (size_t)((r->next + i) & (r->slots - 1)) * r->slot_bytes);
}

static void put_tag_back(const struct tpacket2_hdr *h, uint32_t status, struct packet_frame *f)
{
	uint16_t type = status & TP_STATUS_VLAN_TPID_VALID ? h->tp_vlan_tpid : ETH_P_8021Q;
	const uint8_t tag[TAG_BYTES] = {(uint8_t)(type >> 8), (uint8_t)type, (uint8_t)(h->tp_vlan_tci >> 8),
	                                (uint8_t)h->tp_vlan_tci};

	f->bytes -= TAG_BYTES;
	memmove(f->bytes, f->bytes + TAG_BYTES, MACS_BYTES);
	memcpy(f->bytes + MACS_BYTES, tag, TAG_BYTES);
	f->len += TAG_BYTES;
}

bool packet_ring_frame(const struct packet_ring *r, uint32_t i, struct packet_frame *out)
{
	struct tpacket2_hdr *h = slot(r, i);
	/* Acquire pairs with the kernel's write barrier: the frame is there. */
	uint32_t status = i < r->slots ? __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) : 0;

	if (!(status & TP_STATUS_USER))
		return false;
	*out = (struct packet_frame){
	        .bytes = (uint8_t *)h + h->tp_mac,
	        .len = h->tp_snaplen,
	        .csum_partial = status & TP_STATUS_CSUMNOTREADY,
	        .wall_ns = (uint64_t)h->tp_sec * NSEC_PER_SEC + h->tp_nsec,
	};
	if (status & TP_STATUS_VLAN_VALID && out->len >= MACS_BYTES)
		put_tag_back(h, status, out);
	return true;
}

void packet_ring_give_back(struct packet_ring *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		__atomic_store_n(&slot(r, i)->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	r->next = (r->next + n) & (r->slots - 1);
}

uint32_t packet_ring_missed(const struct packet_ring *r)
{
	struct tpacket_stats stats = {0};
	socklen_t len = sizeof(stats);

	return getsockopt(r->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) ? 0 : stats.tp_drops;
}
