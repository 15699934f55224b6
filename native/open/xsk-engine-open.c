/* SPDX-License-Identifier: MIT */
/* xsk-engine-open - opens AF_XDP sockets for who may not, if /etc/xsk-engine.toml lets him: docs/opener.md.
 * What it hands out is bound, or its holder could bind it to any queue. CAP_NET_RAW goes before anything is judged. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <pwd.h>
#include <regex.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#ifndef OPEN_CONFIG /* the tests have another one */
#define OPEN_CONFIG "/etc/xsk-engine.toml"
#endif
#define VERSION 1u
#define QUEUES 64
#define PATIENCE 250 /* times 10 ms: what a process leaves that has just ended is taken for a moment */
#define BIND_USE_SG (1 << 4)          /* XDP_USE_SG, Linux 6.6 */
#define UMEM_TX_METADATA_LEN (1 << 2) /* XDP_UMEM_TX_METADATA_LEN, Linux 6.11 */

struct umem_reg { /* xdp_umem_reg, Linux 6.11 */
	uint64_t addr, len;
	uint32_t chunk_size, headroom, flags, tx_metadata_len;
};
/* What comes over stdin, by SCM_RIGHTS with the umem, and what goes back, with a bound socket for each queue or an
 * errno, where, and why, which is empty for a kernel's. Mirrored in xsk_engine/opener.py. */
static struct {
	uint32_t version, zerocopy, multi_buffer, chunk_size, tx_metadata_len, ring_size, n_queues;
	uint32_t queues[QUEUES];
	char interface[IFNAMSIZ];
} request;
static struct {
	uint32_t version, error, queue;
	char text[244];
} reply = {.version = VERSION};
static _Alignas(struct cmsghdr) char control[CMSG_SPACE(QUEUES * sizeof(int))];
static struct cmsghdr *const first = (struct cmsghdr *)control;
static struct iovec data = {&request, sizeof(request)};
static struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
static uint64_t umem_len;
static gid_t gids[65537]; /* NGROUPS_MAX, and the primary one */
static int n_gids;

static _Noreturn void answer(int n_fds, const int *fds)
{
	size_t size = (size_t)n_fds * sizeof(*fds);
	char queues[QUEUES * sizeof(",4294967295")] = "", *end = queues;

	for (uint32_t i = 0; i < request.n_queues && i < QUEUES; i++)
		end += sprintf(end, i ? ",%u" : "%u", request.queues[i]);
	data = (struct iovec){&reply, sizeof(reply)};
	message.msg_controllen = n_fds ? CMSG_SPACE(size) : 0;
	first->cmsg_len = CMSG_LEN(size); /* of the level and type that came */
	memcpy(CMSG_DATA(first), fds, size);
	syslog(LOG_NOTICE, "uid %u, %s, queue %s, %s, %llu bytes: %s", getuid(), request.interface, queues,
	       request.zerocopy ? "zerocopy" : "copy", (unsigned long long)umem_len,
	       *reply.text ? reply.text : strerror((int)reply.error));
	if (sendmsg(0, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(reply))
		dprintf(2, "xsk-engine-open: %s\n", *reply.text ? reply.text : strerror(errno));
	_exit(reply.error != 0);
}

static _Noreturn void refuse(int error, const char *text)
{
	reply.error = (uint32_t)error;
	snprintf(reply.text, sizeof(reply.text), "%s", text);
	answer(0, (int[]){0});
}

/* What a line of the file may be: a part of TOML. With any other line nobody is allowed anything. */
#define B "[ \t]*"
#define NUMBER "(0|[1-9][0-9]{0,8}|[1-3][0-9]{9})"
#define WHO "(" NUMBER "|\"[A-Za-z_][A-Za-z0-9_.@$-]{0,62}\")"
#define RANGE NUMBER "(-" NUMBER ")?"
#define LIST(item) "\\[" B item B "(," B item B ")*]"
#define NAMES "interface" B "=" B "\"[A-Za-z0-9_.:-]{1,15}\""
#define WHOM "(users|groups)" B "=" B LIST(WHO)
#define WHICH "queues" B "=" B "(" LIST(NUMBER) "|\"" RANGE "(," RANGE ")*\")"
#define LIMITS "max_umem_mb" B "=" B NUMBER "|mode" B "=" B "\"(copy|zerocopy|any)\""
#define LINE "^" B "(\\[\\[allow]]|" NAMES "|" WHOM "|" WHICH "|" LIMITS ")?" B "(#[\t -~]*)?$"
#define BETWEEN_WORDS " \t=[],\""
#define LACKS "this rule, or the one before, lacks interface, queues, or users and groups"

enum key { ALLOW, USERS, GROUPS, INTERFACE, QUEUE_LIST, MAX_UMEM_MB, MODE };
static const char *const keys[] = {"allow", "users", "groups", "interface", "queues", "max_umem_mb", "mode"};
static const char *const stages[] = {
        "no rule is for this user",
        "no rule of this user's is for this interface",
        "no rule of this user's has all these queues",
        "its max_umem_mb is less than the umem, or the rings (64, if it names none)",
        "its mode is another (copy, if it names none)",
        "opened",
};
static const int errors[] = {EACCES, EACCES, EACCES, ENOBUFS, EOPNOTSUPP, 0}; /* of these */
struct rule {
	int line, stage;
	unsigned seen; /* keys */
	bool you, there, so;
	uint64_t queues, most_bytes; /* those of the request's queues that it has */
};

static void read_item(struct rule *rule, enum key key, const char *item)
{
	const char *dash = strchr(item, '-');
	uint32_t low = (uint32_t)atoll(item), high = dash ? (uint32_t)atoll(dash + 1) : low;
	bool is_id = item[strspn(item, "0123456789")] == 0;
	const struct passwd *user = key == USERS && !is_id ? getpwnam(item) : NULL;
	const struct group *group = key == GROUPS && !is_id ? getgrnam(item) : NULL;

	rule->you |= key == USERS && (is_id ? low == getuid() : user && user->pw_uid == getuid());
	rule->there |= key == INTERFACE && !strcmp(item, request.interface);
	for (int i = 0; key == GROUPS && i < n_gids && (is_id || group); i++)
		rule->you |= gids[i] == (is_id ? low : group->gr_gid);
	for (uint32_t i = 0; key == QUEUE_LIST && i < request.n_queues; i++)
		rule->queues |= (uint64_t)(low <= request.queues[i] && request.queues[i] <= high) << i;
	rule->most_bytes = key == MAX_UMEM_MB ? (uint64_t)low << 20 : rule->most_bytes;
	if (key == MODE)
		rule->so = !strcmp(item, "any") || !strcmp(item, request.zerocopy ? "zerocopy" : "copy");
}

/* Is the rule whole? *best becomes the one that came furthest. */
static bool end_rule(struct rule *rule, struct rule *best)
{
	uint64_t rings_len = (8 + 8 + 16ull) * request.ring_size * request.n_queues;
	bool all = rule->queues == ~0ull >> (QUEUES - request.n_queues);
	bool fits = umem_len <= rule->most_bytes && rings_len <= rule->most_bytes;

	rule->stage = !rule->you ? 0 : !rule->there ? 1 : !all ? 2 : !fits ? 3 : 4 + rule->so;
	if (rule->line && (!best->line || rule->stage > best->stage))
		*best = *rule;
	return !rule->line || ((rule->seen & 1u << INTERFACE) && (rule->seen & 1u << QUEUE_LIST) &&
	                       (rule->seen & (1u << USERS | 1u << GROUPS)));
}

static bool say(int error, int line, const char *what)
{
	snprintf(reply.text, sizeof(reply.text), OPEN_CONFIG ":%d: %s", line, what);
	reply.error = (uint32_t)error;
	return !error;
}

/* Does a rule allow it? The reply says why, or why not. `text` is cut into pieces. */
static bool judge(char *text)
{
	struct rule rule = {0}, best = {0};
	regex_t pattern;
	char *row, *word, *rest;

	if (regcomp(&pattern, LINE, REG_EXTENDED | REG_NOSUB))
		return say(ENOMEM, 0, "no memory");
	for (int line = 1; (row = strsep(&text, "\n")); line++) {
		enum key key = ALLOW;

		if (regexec(&pattern, row, 0, NULL, 0))
			return say(EACCES, line, "not understood; see docs/opener.md");
		row[strcspn(row, "#")] = 0;
		if (!(word = strtok_r(row, BETWEEN_WORDS, &rest)))
			continue;
		while (strcmp(word, keys[key]))
			key++;
		if (key == ALLOW && end_rule(&rule, &best))
			rule = (struct rule){.line = line, .so = !request.zerocopy, .most_bytes = 64 << 20};
		else if (key == ALLOW || !rule.line || rule.seen & 1u << key)
			return say(EACCES, line, key == ALLOW ? LACKS : "twice, or before [[allow]]");
		rule.seen |= 1u << key;
		while ((word = strtok_r(NULL, BETWEEN_WORDS, &rest)))
			read_item(&rule, key, word);
	}
	if (!end_rule(&rule, &best))
		return say(EACCES, rule.line, LACKS);
	return say(errors[best.stage], best.line, stages[best.stage]);
}

static int receive_umem(void)
{
	ssize_t got = recvmsg(0, &message, MSG_CMSG_CLOEXEC);

	request.interface[IFNAMSIZ - 1] = 0;
	for (char *at = request.interface; *at; at++)
		*at = *at > ' ' && *at <= '~' ? *at : '?'; /* it goes into the log; no rule can name it */
	if (got != sizeof(request) || request.version != VERSION ||
	    message.msg_flags & (MSG_CTRUNC | MSG_TRUNC) || first->cmsg_type != SCM_RIGHTS ||
	    first->cmsg_len != CMSG_LEN(sizeof(int)))
		refuse(EPROTO, "started by hand, or by an xsk-engine of another version; see docs/opener.md");
	if (request.n_queues < 1 || request.n_queues > QUEUES || request.ring_size > 65536)
		refuse(EINVAL, "more than 64 queues, or rings of more than 65536 entries");
	return *(int *)CMSG_DATA(first);
}

static void keep_capabilities(uint32_t kept)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct had[2], sets[2] = {{0}};

	if (syscall(SYS_capget, &header, had))
		refuse(errno, "capget");
	sets[0] = (struct __user_cap_data_struct){had[0].effective & kept, had[0].permitted & kept, 0};
	if (syscall(SYS_capset, &header, sets))
		refuse(errno, "capset");
}

static void consult(int umem)
{
	static char text[65536];
	int fd = open(OPEN_CONFIG, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	int seals = fcntl(umem, F_GET_SEALS);
	struct stat file, memory;
	ssize_t len;

	if (fd < 0 || fstat(fd, &file) || !S_ISREG(file.st_mode) || file.st_uid || file.st_mode & 022)
		refuse(EACCES, OPEN_CONFIG " must be a plain file that is root's and nobody else may write");
	len = read(fd, text, sizeof(text));
	if (len < 1 || len == sizeof(text) || memchr(text, 0, (size_t)len) || text[len - 1] != '\n')
		refuse(EACCES, OPEN_CONFIG " is empty, longer than 64 KiB, no text, or ends within a line");
	if (fstat(umem, &memory) || seals < 0 || ~seals & (F_SEAL_SHRINK | F_SEAL_GROW))
		refuse(EINVAL, "the umem is no memfd that is sealed against growing and shrinking");
	umem_len = (uint64_t)memory.st_size;
	if (!judge(text))
		answer(0, (int[]){0});
}

static bool passes(int error, int *tries)
{
	return errno == error && ++*tries < PATIENCE && (usleep(10000), true);
}

static void open_all(int umem, const int *fds)
{
	void *area = mmap(NULL, umem_len, PROT_READ | PROT_WRITE, MAP_SHARED, umem, 0);
	uint32_t metadata = request.tx_metadata_len, flags = metadata ? UMEM_TX_METADATA_LEN : 0;
	struct umem_reg reg = {(uintptr_t)area, umem_len, request.chunk_size, 0, flags, metadata};
	struct sockaddr_xdp where = {AF_XDP, XDP_USE_NEED_WAKEUP, if_nametoindex(request.interface), 0, 0};
	static const int rings[] = {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING};
	char name[IFNAMSIZ];
	int tries = 0;

	where.sxdp_flags |=
	        (request.zerocopy ? XDP_ZEROCOPY : XDP_COPY) | (request.multi_buffer ? BIND_USE_SG : 0);
	for (uint32_t i = 0; i < request.n_queues; i++) {
		reply.queue = where.sxdp_queue_id = request.queues[i];
		while (!i && setsockopt(fds[0], SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)))
			if (!passes(ENOBUFS, &tries))
				refuse(errno, "");
		for (size_t ring = 0; ring < 3; ring++)
			if (setsockopt(fds[i], SOL_XDP, rings[ring], &request.ring_size, sizeof(uint32_t)))
				refuse(errno, "");
		while (bind(fds[i], (struct sockaddr *)&where, sizeof(where)))
			if (!passes(EBUSY, &tries))
				refuse(errno, "");
		where.sxdp_flags = XDP_SHARED_UMEM; /* the mode is the umem's: to say it again is EINVAL */
		where.sxdp_shared_umem_fd = (uint32_t)fds[0];
	}
	if (!if_indextoname(where.sxdp_ifindex, name) || strcmp(name, request.interface))
		refuse(ENODEV, "the interface was renamed meanwhile, or this is not its own name");
}

int main(void)
{
	int fds[QUEUES], umem;
	static const sigset_t none;

	if (fcntl(0, F_GETFD) < 0 || fcntl(1, F_GETFD) < 0 || fcntl(2, F_GETFD) < 0)
		return 2; /* what is opened next would be taken for it */
	close_range(3, ~0u, 0);
	clearenv();                         /* syslog, and what looks up names, would read it */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* its caller does not trace who holds the sockets */
	signal(SIGALRM, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	alarm(10); /* whatever it waits for: name services, most locks of the kernel's */
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	openlog("xsk-engine-open", LOG_NDELAY, LOG_AUTHPRIV);
	umem = receive_umem();
	if (geteuid() != getuid() || getegid() != getgid())
		refuse(EPERM, "xsk-engine-open must not be setuid or setgid: cap_net_raw is all it needs");
	for (uint32_t i = 0; i < request.n_queues; i++)
		if ((fds[i] = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0)) < 0)
			refuse(errno, "xsk-engine-open has no CAP_NET_RAW, or no AF_XDP; see docs/opener.md");
	keep_capabilities(1u << CAP_IPC_LOCK);
	gids[0] = getgid();
	n_gids = getgroups(65536, gids + 1) + 1;
	consult(umem);
	open_all(umem, fds);
	keep_capabilities(0);
	answer((int)request.n_queues, fds);
}
