/* SPDX-License-Identifier: MIT */
/*
 * A QEMU plugin: guest instructions of virtual CPU 0 between two marks, kernel's and user's. The guest marks
 * with a prefetch of a magic address (bench/programs/mark.h), which does nothing else. Every END appends one line
 * "kernel user" to the file named by the argument out=, and writes anew OUT.blocks: where they were, as lines
 * "address count" by the address at which a translated block begins.
 * Counted by translated block: one that an interrupt cuts short counts whole.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../mark.h"
#include "qemu-plugin.h"

#define COUNTED_CPU 0

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* A boot and some hundred programs make 200,000 blocks. Fewer slots: those that find none are counted as at address 0;
 * more: 8 bytes each for every virtual CPU, copied at every mark. */
#define SLOTS (1u << 19)
#define PROBES 64u

struct counts {
	uint64_t user, kernel;
	uint64_t blocks[SLOTS];
};

static struct qemu_plugin_scoreboard *board;
static qemu_plugin_u64 user, kernel;
static struct counts begun, now;
static FILE *out;
static char *blocks_path;
/* By slot; a slot is taken once, by whichever thread translates first. 0 is for those without one. */
static _Atomic uint64_t addresses[SLOTS];

static qemu_plugin_u64 block_entry(uint32_t slot)
{
	return (qemu_plugin_u64){board, offsetof(struct counts, blocks) + slot * sizeof(uint64_t)};
}

static uint32_t slot_of(uint64_t address)
{
	uint32_t first = (uint32_t)((address * 0x9e3779b97f4a7c15u) >> 45); /* 2^64 / golden ratio; 19 bits */

	for (uint32_t i = 0; i < PROBES; i++) {
		uint32_t slot = (first + i) % SLOTS;
		uint64_t found = 0;

		if (slot &&
		    (atomic_compare_exchange_strong(&addresses[slot], &found, address) || found == address))
			return slot;
	}
	return 0;
}

static void read_counts(struct counts *counts)
{
	counts->user = qemu_plugin_u64_get(user, COUNTED_CPU);
	counts->kernel = qemu_plugin_u64_get(kernel, COUNTED_CPU);
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		counts->blocks[slot] = qemu_plugin_u64_get(block_entry(slot), COUNTED_CPU);
}

static void write_blocks(void)
{
	FILE *file = fopen(blocks_path, "w");

	if (!file)
		return;
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		if (now.blocks[slot] != begun.blocks[slot])
			fprintf(file, "%llx %llu\n", (unsigned long long)addresses[slot],
			        (unsigned long long)(now.blocks[slot] - begun.blocks[slot]));
	fclose(file);
}

static void marked(unsigned int cpu, void *mark)
{
	(void)cpu;
	if ((uintptr_t)mark == MARK_BEGIN) {
		read_counts(&begun);
		return;
	}
	read_counts(&now);
	write_blocks(); /* first: who sees the line finds them */
	fprintf(out, "%llu %llu\n", (unsigned long long)(now.kernel - begun.kernel),
	        (unsigned long long)(now.user - begun.user));
	fflush(out);
}

static void look_for_mark(struct qemu_plugin_insn *insn)
{
	static const unsigned char begin[] = MARK_BYTES(MARK_BEGIN), end[] = MARK_BYTES(MARK_END);
	unsigned char bytes[sizeof(begin)];

	if (qemu_plugin_insn_size(insn) != sizeof(bytes) ||
	    qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) != sizeof(bytes))
		return;
	if (!memcmp(bytes, begin, sizeof(bytes)))
		qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, QEMU_PLUGIN_CB_NO_REGS,
		                                       (void *)MARK_BEGIN);
	else if (!memcmp(bytes, end, sizeof(bytes)))
		qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, QEMU_PLUGIN_CB_NO_REGS,
		                                       (void *)MARK_END);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);
	int in_kernel = (qemu_plugin_tb_vaddr(tb) >> 63) & 1; /* x86-64: the upper half */

	(void)id;
	for (size_t i = 0; !in_kernel && i < n; i++)
		look_for_mark(qemu_plugin_tb_get_insn(tb, i));
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64,
	                                                  in_kernel ? kernel : user, n);
	qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64,
	                                                  block_entry(slot_of(qemu_plugin_tb_vaddr(tb))), n);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4) || !(out = fopen(argv[0] + 4, "a")))
		return -1;
	blocks_path = malloc(strlen(argv[0] + 4) + sizeof(".blocks"));
	if (!blocks_path)
		return -1;
	strcat(strcpy(blocks_path, argv[0] + 4), ".blocks");
	board = qemu_plugin_scoreboard_new(sizeof(struct counts));
	user = qemu_plugin_scoreboard_u64_in_struct(board, struct counts, user);
	kernel = qemu_plugin_scoreboard_u64_in_struct(board, struct counts, kernel);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
