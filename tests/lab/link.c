/*
 * Carries packets between two TUN devices as a bad line does.
 *
 *     link CONTROL NS_A NAME_A NS_B NAME_B QUEUE_PACKETS [FD...]
 *
 * Makes a device in each of two network namespaces and carries what goes into one out of the other:
 * a queue of so many bytes drains at a rate, and each packet comes out a delay later, or is lost.
 * Both directions have their own values. "ready" on standard output says that the devices are there.
 * It ends by SIGTERM, or when one of the pidfds FD... says that its process is gone.
 *
 * CONTROL is a Unix socket: one line, one answer, a JSON object of both directions, per connection.
 *     stats
 *     set a|b|both [rate=BITS_S] [delay=US] [queue=BYTES] [loss=PPM] [cut=0|1] [seed=N]
 * Direction a is from A to B. rate 0: no limit. What waits when the line is cut is lost with it.
 *
 * A packet never overtakes another: a shorter delay works from the moment the earlier ones are out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Room for a packet of any MTU up to 9000, in steps that keep slots aligned. */
enum { SLOT_BYTES = 9216, BATCH = 32, FDS_MAX = 16, LINE_MAX_BYTES = 512 };
static const uint64_t NS_PER_S = 1000000000ull;
/* At 1 Gbit/s a packet is due each 12 us; to wake for each would take more time than to carry it. */
static const uint64_t NAP_NS = 40000;

struct direction {
    int in, out;
    /* Set by the control thread. */
    _Atomic uint64_t rate_bits_s, delay_us, queue_bytes, loss_ppm, seed;
    _Atomic bool is_cut;
    /* Counted by the direction's own thread. */
    _Atomic uint64_t packets_in, bytes_in, packets_out, bytes_out;
    _Atomic uint64_t lost, cut, queue_full, line_full, refused, waiting, waiting_max;
    /* The packets on the way, oldest first; free slots are used again last in, first out, so that
     * no more memory is touched than was needed at once. */
    uint8_t *slots;
    uint32_t *free_slots, free_count;
    struct { uint64_t due_ns; uint32_t slot, bytes; } *line;
    uint32_t capacity, head, count;
    uint64_t sent_ns, last_due_ns, random;
};

static struct direction directions[2];

static void fail(const char *what) {
    fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t next_random(struct direction *d) {
    uint64_t seed = atomic_exchange(&d->seed, 0);
    if (seed) d->random = seed;
    /* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators". */
    d->random ^= d->random >> 12;
    d->random ^= d->random << 25;
    d->random ^= d->random >> 27;
    return d->random * 2685821657736338717ull >> 32;
}

static bool is_lost(struct direction *d) {
    uint64_t ppm = d->loss_ppm;
    return ppm && next_random(d) * 1000000 >> 32 < ppm;
}

/* Decide when a packet comes out; false where there is no room for it. */
static bool admit(struct direction *d, uint32_t bytes, uint64_t now, uint64_t *due_ns) {
    uint64_t rate = d->rate_bits_s, start = d->sent_ns > now ? d->sent_ns : now;
    if (rate) {
        /* The backlog as bytes; 128 bits, or a slow line's backlog would overflow. */
        uint64_t backlog = (uint64_t)((__uint128_t)(start - now) * rate / 8 / NS_PER_S);
        if (backlog + bytes > d->queue_bytes) return false;
        d->sent_ns = start + (uint64_t)bytes * 8 * NS_PER_S / rate;
    } else {
        d->sent_ns = now;
    }
    *due_ns = d->sent_ns + d->delay_us * 1000;
    if (*due_ns < d->last_due_ns) *due_ns = d->last_due_ns;
    d->last_due_ns = *due_ns;
    return true;
}

static void take(struct direction *d, uint32_t slot, uint32_t bytes) {
    uint64_t due_ns;
    d->packets_in++;
    d->bytes_in += bytes;
    if (d->is_cut) { d->cut++; return; }
    if (!admit(d, bytes, now_ns(), &due_ns)) { d->queue_full++; return; }
    /* Lost on the line, not before it: a lost packet takes its time in the queue as well. */
    if (is_lost(d)) { d->lost++; return; }
    uint32_t at = (d->head + d->count) % d->capacity;
    d->line[at].due_ns = due_ns;
    d->line[at].slot = slot;
    d->line[at].bytes = bytes;
    d->count++;
    d->free_count--;
}

/* Read what is there, at most a batch; false where the device is gone. */
static bool read_batch(struct direction *d) {
    static _Thread_local uint8_t spill[SLOT_BYTES];
    for (int i = 0; i < BATCH; i++) {
        bool has_room = d->free_count > 0;
        uint32_t slot = has_room ? d->free_slots[d->free_count - 1] : 0;
        uint8_t *into = has_room ? d->slots + (size_t)slot * SLOT_BYTES : spill;
        ssize_t bytes = read(d->in, into, SLOT_BYTES);
        if (bytes < 0) return errno == EAGAIN || errno == EINTR;
        if (has_room) take(d, slot, (uint32_t)bytes);
        else { d->packets_in++; d->bytes_in += (uint64_t)bytes; d->line_full++; }
    }
    return true;
}

static bool write_due(struct direction *d) {
    uint64_t now = now_ns();
    for (int i = 0; d->count && i < 2 * BATCH && d->line[d->head].due_ns <= now; i++) {
        uint32_t slot = d->line[d->head].slot, bytes = d->line[d->head].bytes;
        if (d->is_cut) {
            d->cut++;
        } else if (write(d->out, d->slots + (size_t)slot * SLOT_BYTES, bytes) == (ssize_t)bytes) {
            d->packets_out++;
            d->bytes_out += bytes;
        } else if (errno == EBADFD) {
            return false;
        } else {
            d->refused++; /* The device is down, or its receiver has no memory. */
        }
        d->free_slots[d->free_count++] = slot;
        d->head = (d->head + 1) % d->capacity;
        d->count--;
    }
    d->waiting = d->count;
    if (d->count > d->waiting_max) d->waiting_max = d->count;
    return true;
}

static void *carry(void *argument) {
    struct direction *d = argument;
    /* Without real time, the default slack of 50 us would be the error of each delay. */
    prctl(PR_SET_TIMERSLACK, 1);
    for (;;) {
        struct pollfd wait = {.fd = d->in, .events = POLLIN};
        struct timespec timeout = {0, 0}, *until = NULL;
        if (d->count) {
            uint64_t now = now_ns(), due = d->line[d->head].due_ns;
            uint64_t rest = due > now ? due - now : 0;
            if (rest && rest < NAP_NS) rest = NAP_NS;
            timeout.tv_sec = (time_t)(rest / NS_PER_S);
            timeout.tv_nsec = (long)(rest % NS_PER_S);
            until = &timeout;
        }
        if (ppoll(&wait, 1, until, NULL) < 0 && errno != EINTR) fail("poll");
        if (wait.revents & (POLLERR | POLLHUP | POLLNVAL)) break;
        if ((wait.revents & POLLIN) && !read_batch(d)) break;
        if (!write_due(d)) break;
    }
    fprintf(stderr, "link: a device is gone\n");
    exit(1);
}

static int open_tun(const char *namespace, const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = open(namespace, O_RDONLY | O_CLOEXEC);
    if (there < 0 || home < 0) fail(namespace);
    if (setns(there, CLONE_NEWNET)) fail("setns");
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0) fail("/dev/net/tun");
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(tun, TUNSETIFF, &request)) fail(name);
    if (setns(home, CLONE_NEWNET)) fail("setns");
    close(home);
    close(there);
    return tun;
}

static void prepare(struct direction *d, int in, int out, uint32_t capacity, uint64_t seed) {
    size_t bytes = (size_t)capacity * SLOT_BYTES;
    *d = (struct direction){.in = in, .out = out, .capacity = capacity, .random = seed};
    d->queue_bytes = 256 * 1500;
    d->slots = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    d->free_slots = calloc(capacity, sizeof *d->free_slots);
    d->line = calloc(capacity, sizeof *d->line);
    if (d->slots == MAP_FAILED || !d->free_slots || !d->line) fail("memory");
    for (d->free_count = 0; d->free_count < capacity; d->free_count++)
        d->free_slots[d->free_count] = capacity - 1 - d->free_count;
}

static bool set_value(struct direction *d, const char *key, uint64_t value) {
    if (!strcmp(key, "rate")) d->rate_bits_s = value;
    else if (!strcmp(key, "delay")) d->delay_us = value;
    else if (!strcmp(key, "queue")) d->queue_bytes = value;
    else if (!strcmp(key, "loss")) d->loss_ppm = value;
    else if (!strcmp(key, "cut")) d->is_cut = value != 0;
    else if (!strcmp(key, "seed")) d->seed = value;
    else return false;
    return true;
}

/* Carry out a "set" line; a complaint where it makes no sense, otherwise NULL. */
static const char *set_values(char *line) {
    char *rest = NULL, *which = strtok_r(line, " \n", &rest);
    if (!which) return "set what?";
    bool is_a = !strcmp(which, "a"), is_b = !strcmp(which, "b"), is_both = !strcmp(which, "both");
    if (!is_a && !is_b && !is_both) return "no such direction";
    for (char *word; (word = strtok_r(NULL, " \n", &rest));) {
        char *equals = strchr(word, '='), *end = NULL;
        if (!equals) return "a value is key=number";
        *equals = 0;
        errno = 0;
        uint64_t value = strtoull(equals + 1, &end, 10);
        if (errno || *end || end == equals + 1) return "a value is key=number";
        if ((is_a || is_both) && !set_value(&directions[0], word, value)) return "no such key";
        if ((is_b || is_both) && !set_value(&directions[1], word, value)) return "no such key";
    }
    return NULL;
}

static void say(int to, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vdprintf(to, format, arguments);
    va_end(arguments);
}

static void say_direction(int to, const char *name, struct direction *d) {
    say(to,
        "\"%s\": {\"rate_bits_s\": %" PRIu64 ", \"delay_us\": %" PRIu64 ", \"queue_bytes\": %" PRIu64
        ", \"loss_ppm\": %" PRIu64 ", \"is_cut\": %s, \"packets_in\": %" PRIu64
        ", \"bytes_in\": %" PRIu64 ", \"packets_out\": %" PRIu64 ", \"bytes_out\": %" PRIu64,
        name, d->rate_bits_s, d->delay_us, d->queue_bytes, d->loss_ppm,
        d->is_cut ? "true" : "false", d->packets_in, d->bytes_in, d->packets_out, d->bytes_out);
    say(to,
        ", \"lost\": %" PRIu64 ", \"cut\": %" PRIu64 ", \"queue_full\": %" PRIu64
        ", \"line_full\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"waiting\": %" PRIu64
        ", \"waiting_max\": %" PRIu64 "}",
        d->lost, d->cut, d->queue_full, d->line_full, d->refused, d->waiting, d->waiting_max);
}

static void answer(int peer) {
    char line[LINE_MAX_BYTES + 1] = "";
    struct timeval patience = {.tv_sec = 2};
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t bytes = recv(peer, line, LINE_MAX_BYTES, 0);
    if (bytes <= 0) return;
    line[bytes] = 0;
    const char *complaint = NULL;
    if (!strncmp(line, "set ", 4)) complaint = set_values(line + 4);
    else if (strncmp(line, "stats", 5)) complaint = "no such command";
    if (complaint) {
        say(peer, "{\"error\": \"%s\"}\n", complaint);
        return;
    }
    say(peer, "{");
    say_direction(peer, "a", &directions[0]);
    say(peer, ", ");
    say_direction(peer, "b", &directions[1]);
    say(peer, "}\n");
}

static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) { errno = ENAMETOOLONG; fail(path); }
    strcpy(address.sun_path, path);
    int control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(path);
    if (bind(control, (struct sockaddr *)&address, sizeof address) || listen(control, 8)) fail(path);
    return control;
}

int main(int argc, char **argv) {
    if (argc < 7 || argc - 7 > FDS_MAX) {
        fprintf(stderr, "usage: link CONTROL NS_A NAME_A NS_B NAME_B QUEUE_PACKETS [FD...]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    /* One that waits for the processor is a worse line than was asked for. Real time, as niceness
     * counts only within a session; the kernel leaves others their share. Refused: so be it. */
    struct sched_param priority = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_RR, &priority);
    int a = open_tun(argv[2], argv[3]), b = open_tun(argv[4], argv[5]);
    uint32_t capacity = (uint32_t)strtoul(argv[6], NULL, 10);
    prepare(&directions[0], a, b, capacity, now_ns() | 1);
    prepare(&directions[1], b, a, capacity, now_ns() * 31 | 1);
    struct pollfd waits[1 + FDS_MAX] = {{.fd = listen_at(argv[1]), .events = POLLIN}};
    nfds_t count = 1;
    for (int i = 7; i < argc; i++) waits[count++] = (struct pollfd){atoi(argv[i]), POLLIN, 0};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, carry, &directions[i])) fail("thread");
    say(STDOUT_FILENO, "ready\n");
    for (;;) {
        if (poll(waits, count, -1) < 0 && errno != EINTR) fail("poll");
        for (nfds_t i = 1; i < count; i++)
            if (waits[i].revents) return 0;
        if (!(waits[0].revents & POLLIN)) continue;
        int peer = accept4(waits[0].fd, NULL, NULL, SOCK_CLOEXEC);
        if (peer < 0) continue;
        answer(peer);
        close(peer);
    }
}
