/*
 * The guest's only program: does what can be seen from outside, so that what is lost is seen.
 *
 *     guest TICK_MS DISK_WRITES_S MEMORY_MIB PAGES_S
 *
 * Console: a line per tick.
 *     tick 17 mono_ms=1700 wall_ms=1764000000000 disk=34 pages=5100 bad=0 echoed=12
 *   tick counts from 1. disk: number of the last block that is on the disk. pages: memory writes.
 *   bad: pages and blocks that did not hold what had been written.
 * UDP port 7777: what comes in goes back, followed by the tick as 8 bytes, big-endian.
 *   A datagram "rate N" sets the memory writes per second; the answer is "ok".
 * Disk /dev/vda: block n lies at 4096 * (n mod blocks): magic, n, and words that follow from n.
 *   A restarted guest goes on after the largest number that it finds.
 * Memory: each write gives a page the next generation, after a look whether it still holds the last.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8, PORT = 7777, STEP_MS = 10 };
static const uint64_t MAGIC = 0x4e6f766143726f6eull; /* "NovaCron" */

static _Atomic uint64_t ticks, disk_number, pages_written, bad, echoed, pages_s;

static uint64_t clock_ms(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void wait_ms(uint64_t ms) {
    struct timespec rest = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&rest, NULL);
}

/* The words of page or block n: splitmix64 (Steele, Lea, Flood 2014), so that none can stand for
 * another. Little-endian, as the reader outside expects. */
static void fill(uint64_t *words, uint64_t n) {
    words[0] = MAGIC;
    words[1] = n;
    for (uint64_t i = 2; i < PAGE_WORDS; i++) {
        uint64_t z = (n + i * 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        words[i] = z ^ (z >> 31);
    }
}

static void *write_disk(void *argument) {
    uint64_t per_s = *(uint64_t *)argument, bytes = 0;
    int disk = open("/dev/vda", O_RDWR | O_DIRECT | O_DSYNC);
    if (!per_s || disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes)) return NULL;
    uint64_t blocks = bytes / PAGE_BYTES, *block, *back, n = 0;
    if (posix_memalign((void **)&block, PAGE_BYTES, PAGE_BYTES) ||
        posix_memalign((void **)&back, PAGE_BYTES, PAGE_BYTES)) return NULL;
    /* Where an earlier life stopped: the largest number that is there. */
    for (uint64_t i = 0; i < blocks; i++) {
        if (pread(disk, back, PAGE_BYTES, (off_t)(i * PAGE_BYTES)) != PAGE_BYTES) break;
        if (back[0] != MAGIC) break;
        if (back[1] > n) n = back[1];
    }
    uint64_t first = n + 1;
    for (uint64_t begin = clock_ms(CLOCK_MONOTONIC);;) {
        uint64_t due = first + (clock_ms(CLOCK_MONOTONIC) - begin) * per_s / 1000;
        if (n >= due) { wait_ms(STEP_MS); continue; }
        off_t at = (off_t)(++n % blocks * PAGE_BYTES);
        fill(block, n);
        if (pwrite(disk, block, PAGE_BYTES, at) != PAGE_BYTES) { bad++; continue; }
        if (pread(disk, back, PAGE_BYTES, at) != PAGE_BYTES || memcmp(block, back, PAGE_BYTES)) bad++;
        disk_number = n;
    }
}

static void *dirty_memory(void *argument) {
    uint64_t count = *(uint64_t *)argument * 256, *expected = calloc(count + 1, 8);
    uint64_t *memory = mmap(NULL, count * PAGE_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!count || memory == MAP_FAILED || !expected) return NULL;
    uint64_t good[PAGE_WORDS], owed = 0, at = 0, last = clock_ms(CLOCK_MONOTONIC);
    for (;;) {
        uint64_t now = clock_ms(CLOCK_MONOTONIC);
        owed += (now - last) * pages_s;
        last = now;
        /* What a slow machine can't keep up with is dropped, not piled up. */
        if (owed > 1000 * (pages_s + 1)) owed = 1000 * (pages_s + 1);
        if (owed < 1000) { wait_ms(STEP_MS); continue; }
        for (; owed >= 1000; owed -= 1000) {
            uint64_t *page = memory + at * PAGE_WORDS;
            if (expected[at]) {
                fill(good, expected[at]);
                if (memcmp(good, page, PAGE_BYTES)) bad++;
            }
            expected[at] = ++pages_written;
            fill(page, expected[at]);
            at = (at + 1) % count;
        }
    }
}

static void *echo(void *argument) {
    (void)argument;
    static uint8_t datagram[65536];
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (udp < 0 || bind(udp, (struct sockaddr *)&own, sizeof own)) return NULL;
    for (;;) {
        struct sockaddr_in peer;
        socklen_t peer_bytes = sizeof peer;
        ssize_t bytes = recvfrom(udp, datagram, sizeof datagram - 9, 0,
                                 (struct sockaddr *)&peer, &peer_bytes);
        if (bytes < 0) continue;
        datagram[bytes] = 0;
        if (!strncmp((char *)datagram, "rate ", 5)) {
            pages_s = strtoull((char *)datagram + 5, NULL, 10);
            sendto(udp, "ok", 2, 0, (struct sockaddr *)&peer, peer_bytes);
            continue;
        }
        uint64_t tick = htobe64(ticks);
        memcpy(datagram + bytes, &tick, 8);
        sendto(udp, datagram, (size_t)bytes + 8, 0, (struct sockaddr *)&peer, peer_bytes);
        echoed++;
    }
}

int main(int argc, char **argv) {
    static uint64_t tick_ms, disk_s, memory_mib;
    if (argc != 5) return 2;
    tick_ms = strtoull(argv[1], NULL, 10);
    disk_s = strtoull(argv[2], NULL, 10);
    memory_mib = strtoull(argv[3], NULL, 10);
    pages_s = strtoull(argv[4], NULL, 10);
    if (!tick_ms) return 2;
    pthread_t thread;
    pthread_create(&thread, NULL, write_disk, &disk_s);
    pthread_create(&thread, NULL, dirty_memory, &memory_mib);
    pthread_create(&thread, NULL, echo, NULL);
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (;;) {
        ticks++;
        /* One write, so that the kernel's own lines don't come between. */
        char line[256];
        int bytes = snprintf(line, sizeof line,
            "tick %" PRIu64 " mono_ms=%" PRIu64 " wall_ms=%" PRIu64 " disk=%" PRIu64
            " pages=%" PRIu64 " bad=%" PRIu64 " echoed=%" PRIu64 "\n",
            ticks, clock_ms(CLOCK_MONOTONIC), clock_ms(CLOCK_REALTIME), disk_number,
            pages_written, bad, echoed);
        if (write(STDOUT_FILENO, line, (size_t)bytes) != bytes) return 1;
        due.tv_nsec += (long)(tick_ms % 1000) * 1000000;
        due.tv_sec += (time_t)(tick_ms / 1000) + due.tv_nsec / 1000000000;
        due.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
}
