/* SPDX-License-Identifier: MIT */
/*
 * A QEMU plugin: guest instructions of virtual CPU 0 between two marks, kernel's and user's. The guest marks
 * with a prefetch of a magic address (bench/mark.h), which does nothing else. Every END appends one line
 * "kernel user" to the file named by the argument out=.
 * Counted by translated block: one that an interrupt cuts short counts whole.
 */
#include <stdio.h>
#include <string.h>

#include "../mark.h"
#include "qemu-plugin.h"

#define COUNTED_CPU 0

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

struct counts {
	uint64_t user, kernel;
};

static struct qemu_plugin_scoreboard *board;
static qemu_plugin_u64 user, kernel;
static struct counts begun;
static FILE *out;

static struct counts counts_now(void)
{
	return (struct counts){qemu_plugin_u64_get(user, COUNTED_CPU),
	                       qemu_plugin_u64_get(kernel, COUNTED_CPU)};
}

static void marked(unsigned int cpu, void *mark)
{
	struct counts now = counts_now();

	(void)cpu;
	if ((uintptr_t)mark == MARK_BEGIN) {
		begun = now;
		return;
	}
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
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4) || !(out = fopen(argv[0] + 4, "a")))
		return -1;
	board = qemu_plugin_scoreboard_new(sizeof(struct counts));
	user = qemu_plugin_scoreboard_u64_in_struct(board, struct counts, user);
	kernel = qemu_plugin_scoreboard_u64_in_struct(board, struct counts, kernel);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
