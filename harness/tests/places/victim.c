/* Puts a secret into many places and holds it there.
 *
 * victim list        prints the rows
 * victim run NAME    plants, announces `planted` and `wiped`, ends with 0 (or 9: the look changed something)
 *
 * Writes the address of each copy, by name, into the file `places` beside itself. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <immintrin.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LEN = 32, PAGE = 4096 };
#define GIB (1UL << 30)

static FILE *notes;

static void fail(void) { _exit(3); }

static void *check(void *mapped) {
    if (mapped == MAP_FAILED) fail();
    return mapped;
}

static void *pages(size_t length, int protection, int flags) {
    return check(mmap(NULL, length, protection, flags | MAP_ANONYMOUS, -1, 0));
}

static void announce(unsigned char which) {
    unsigned char frame[2] = {0xC5, which};
    if (send(3, frame, 2, 0) != 2 || recv(3, frame, 2, 0) != 2) fail();
}

static void note(const char *name, const void *at) {
    fprintf(notes, "%s %lx\n", name, (unsigned long)at);
    fflush(notes);
}

static FILE *beside(const char *name, const char *mode, char *path, size_t room) {
    ssize_t got = readlink("/proc/self/exe", path, room - 64);
    if (got < 0) fail();
    path[got] = 0;
    strcpy(strrchr(path, '/') + 1, name);
    FILE *file = fopen(path, mode);
    if (!file) fail();
    return file;
}

/* A page of its own kind with the secret in it. */
static char *page_with(const char *name, const char *secret, int flags) {
    char *page = pages(PAGE, PROT_READ | PROT_WRITE, flags);
    memcpy(page + 64, secret, LEN);
    note(name, page + 64);
    return page;
}

static void everywhere(const char *secret) {
    char *heap = malloc(100);
    memcpy(heap, secret, LEN);
    note("heap", heap);
    page_with("anonymous", secret, MAP_PRIVATE);
    page_with("shared", secret, MAP_SHARED);
    mprotect(page_with("read-only", secret, MAP_PRIVATE), PAGE, PROT_READ);
    mprotect(page_with("no-access", secret, MAP_PRIVATE), PAGE, PROT_NONE);
    madvise(page_with("dont-fork", secret, MAP_PRIVATE), PAGE, MADV_DONTFORK);
    madvise(page_with("wipe-on-fork", secret, MAP_PRIVATE), PAGE, MADV_WIPEONFORK);
    madvise(page_with("dont-dump", secret, MAP_PRIVATE), PAGE, MADV_DONTDUMP);
    char *gone = pages(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    memcpy(gone, secret, LEN);
    munmap(gone, PAGE);
    char *hex = malloc(2 * LEN + 1);
    for (int i = 0; i < LEN; i++) sprintf(hex + 2 * i, "%02x", (unsigned char)secret[i]);
    note("hex", hex);
    int zero = open("/dev/zero", O_RDWR);
    if (zero < 0) fail();
    char *of_device = check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0));
    memcpy(of_device + 64, secret, LEN);
    note("device", of_device + 64);
    close(zero);
    int fd = (int)syscall(447, O_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, PAGE) == 0) {
        char *page = check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        memcpy(page + 64, secret, LEN);
        note("memfd-secret", page + 64);
        close(fd);
    }
}

/* A few pages far apart in 20 GiB, the secret on the last of them. */
static void sparse(const char *secret) {
    size_t length = 20 * GIB;
    char *base = pages(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
    madvise(base, length, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < length; at += length / 1024) base[at] = 1;
    memcpy(base + length - PAGE, secret, LEN);
    note("sparse", base + length - PAGE);
}

/* Half of every second page of a reserved area, so that runs are many; the secret lies across a run's end. */
static void chequered(const char *secret) {
    size_t length = 8UL << 20;
    char *base = pages(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
    madvise(base, length, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < length; at += 2 * PAGE) base[at] = 1;
    char *at = base + length / 2 + PAGE - LEN / 2;
    memcpy(at, secret, LEN);
    note("chequered", at);
}

/* Shared memory that only a descriptor has touched. */
static int behind(const char *secret) {
    int fd = memfd_create("behind", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)GIB) || pwrite(fd, secret, LEN, 5 << 20) != LEN) fail();
    char *base = check(mmap(NULL, GIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    note("behind", base + (5 << 20));
    return fd;
}

static void race(void) {
    char path[4096];
    FILE *file = beside("raced", "r+", path, sizeof path);
    volatile char *base = check(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fileno(file), 0));
    (void)base[0];
    fclose(file);
}

static volatile int ready;

static void *in_ymm(void *secret) {
    __asm__ volatile("vmovdqu (%0), %%ymm7\n movl $1, (%1)\n1: pause\n jmp 1b" ::"r"(secret), "r"(&ready) : "xmm7");
    return NULL;
}

static void *in_zmm(void *secret) {
    __asm__ volatile("vmovdqu64 (%0), %%ymm19\n movl $1, (%1)\n1: pause\n jmp 1b" ::"r"(secret), "r"(&ready) : "memory");
    return NULL;
}

static void *in_opmask(void *secret) {
    __asm__ volatile("kmovq 8(%0), %%k1\n movl $1, (%1)\n1: pause\n jmp 1b" ::"r"(secret), "r"(&ready) : "memory");
    return NULL;
}

static void in_thread(void *(*body)(void *), char *secret) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, secret)) fail();
    while (!ready) usleep(100);
}

/* What the kernel keeps. Each store is filled here, and drained again once it was looked at. */
enum { BIG = 256 << 10 };
static int plain_pipe[2], full_pipe[2], one_end, packets[2], stream[2], messages[2], sequence[2], flying[2];
static int udp = -1, tcp = -1, own_pipe[2];
static uint64_t known;

/* So that the secret can be known again by somebody who has wiped it. */
static uint64_t sum(const char *bytes) {
    uint64_t sum = 14695981039346656037u;
    for (int i = 0; i < LEN; i++) sum = (sum ^ (unsigned char)bytes[i]) * 1099511628211u;
    return sum;
}

static void note_fd(const char *name, int fd) { note(name, (void *)(long)fd); }

static void put(int fd, const void *bytes, size_t length) {
    if (write(fd, bytes, length) != (ssize_t)length) fail();
}

static void fill(int fd, size_t length) {
    static char junk[4096];
    memset(junk, 'j', sizeof junk);
    for (; length; length -= sizeof junk) put(fd, junk, sizeof junk);
}

/* Two ends of a connection over the loopback device; -1 where there is none. */
static int connected(int type, int *sender) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof at;
    int server = socket(AF_INET, type, 0);
    *sender = socket(AF_INET, type, 0);
    if (server < 0 || *sender < 0 || bind(server, (void *)&at, sizeof at)) return -1;
    if (getsockname(server, (void *)&at, &length) || type == SOCK_STREAM && listen(server, 1)) return -1;
    if (connect(*sender, (void *)&at, length)) return -1;
    return type == SOCK_STREAM ? accept(server, NULL, NULL) : server;
}

static void *with_own_table(void *secret) {
    if (unshare(CLONE_FILES) || pipe(own_pipe)) fail();
    put(own_pipe[1], secret, LEN);
    explicit_bzero(secret, LEN);
    note_fd("own-table", own_pipe[0]);
    ready = 1;
    for (;;) pause();
}

static void kernel(const char *secret) {
    int ends[2], sender;
    known = sum(secret);
    if (pipe(plain_pipe) || pipe(full_pipe) || pipe2(packets, O_DIRECT) || pipe(ends)) fail();
    put(plain_pipe[1], "before", 6);
    put(plain_pipe[1], secret, LEN);
    note_fd("pipe", plain_pipe[0]);
    if (fcntl(full_pipe[1], F_SETPIPE_SZ, BIG) < BIG) fail();
    fill(full_pipe[1], BIG - PAGE);
    put(full_pipe[1], secret, LEN);
    note_fd("full-pipe", full_pipe[0]);
    put(packets[1], secret, LEN / 2);
    put(packets[1], secret + LEN / 2, LEN / 2);
    note_fd("packets", packets[0]);
    put(ends[1], secret, LEN);
    close(ends[0]); /* nobody will ever read it */
    note_fd("one-end", one_end = ends[1]);

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, stream) || socketpair(AF_UNIX, SOCK_DGRAM, 0, messages)) fail();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sequence) || socketpair(AF_UNIX, SOCK_STREAM, 0, flying)) fail();
    fill(stream[0], 64 << 10);
    put(stream[0], secret, LEN);
    note_fd("stream", stream[1]);
    put(stream[1], secret, LEN);
    note_fd("other-end", stream[0]);
    put(messages[0], "first", 5);
    if (send(messages[0], "", 0, 0)) fail();
    put(messages[0], secret, LEN);
    put(messages[0], "last", 4);
    note_fd("messages", messages[1]);
    put(sequence[0], "first", 5);
    put(sequence[0], secret, LEN);
    note_fd("sequence", sequence[1]);
    int off = 3; /* one that the program has set itself must be there after a look */
    if (setsockopt(sequence[1], SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off)) fail();
    if ((udp = connected(SOCK_DGRAM, &sender)) >= 0) {
        put(sender, "first", 5);
        put(sender, secret, LEN);
        note_fd("udp", udp);
    }
    if ((tcp = connected(SOCK_STREAM, &sender)) >= 0) {
        fill(sender, 16 << 10);
        put(sender, secret, LEN);
        struct pollfd come = {tcp, POLLIN, 0};
        poll(&come, 1, 1000);
        usleep(10000);
        note_fd("tcp", tcp);
    }

    int file = memfd_create("kept", 0);
    if (file < 0 || ftruncate(file, GIB) || pwrite(file, secret, LEN, 500 << 20) != LEN) fail();
    note_fd("memfd", file);
    char path[4096];
    fclose(beside("deleted", "w", path, sizeof path));
    int deleted = open(path, O_WRONLY);
    if (deleted < 0 || unlink(path)) fail();
    put(deleted, "before", 6);
    put(deleted, secret, LEN);
    note_fd("deleted", deleted);
    *strrchr(path, '/') = 0;
    int nameless = open(path, O_TMPFILE | O_RDWR, 0600);
    if (nameless >= 0) {
        put(nameless, secret, LEN);
        note_fd("never-named", nameless);
    }
    int hidden = (int)syscall(447, O_CLOEXEC);
    if (hidden >= 0 && ftruncate(hidden, PAGE) == 0) {
        char *page = check(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, hidden, 0));
        memcpy(page + 64, secret, LEN);
        munmap(page, PAGE);
        note_fd("memfd-secret", hidden);
    }
    int carried = memfd_create("carried", 0);
    put(carried, secret, LEN);
    union { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &carried, sizeof carried);
    if (sendmsg(flying[0], &message, 0) != 1) fail();
    close(carried);
    note_fd("in-flight", flying[1]);
}

/* Whether the next message, or the next bytes of a stream, are these and the secret is behind them. */
static int holds(int fd, const char *before, size_t length) {
    char read_back[LEN + 64];
    static char skipped[4096];
    for (; length > 64; length -= sizeof skipped)
        if (read(fd, skipped, sizeof skipped) != sizeof skipped || skipped[4095] != 'j') return 0;
    if (length && (read(fd, read_back, length) != (ssize_t)length || memcmp(read_back, before, length))) return 0;
    ssize_t got = read(fd, read_back, LEN);
    if (got > 0 && got < LEN) got += read(fd, read_back + got, LEN - got);
    return got == LEN && sum(read_back) == known;
}

/* Whether all is where it was, in its order. */
static int untouched(void) {
    char empty[8];
    int off = 0;
    socklen_t length = sizeof off;
    if (!holds(plain_pipe[0], "before", 6) || !holds(full_pipe[0], NULL, BIG - PAGE)) return 0;
    if (!holds(packets[0], NULL, 0) || !holds(stream[1], NULL, 64 << 10) || !holds(stream[0], NULL, 0)) return 0;
    if (read(messages[1], empty, 8) != 5 || read(messages[1], empty, 8) != 0) return 0;
    if (!holds(messages[1], NULL, 0) || read(messages[1], empty, 8) != 4) return 0;
    if (getsockopt(sequence[1], SOL_SOCKET, SO_PEEK_OFF, &off, &length) || off != 3) return 0;
    if (!holds(sequence[1], "first", 5)) return 0;
    if (udp >= 0 && !holds(udp, "first", 5)) return 0;
    return tcp < 0 || holds(tcp, NULL, 16 << 10);
}

int main(int argc, char **argv) {
    static char secret[LEN];
    char path[4096];
    const char *rows[] = {"everywhere", "sparse", "chequered", "behind", "race", "ymm", "zmm", "opmask", "kernel"};
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            printf("%c{\"name\":\"places/%s\",\"holder\":\"places\",\"ending\":\"%s\",\"canary\":\"bytes\","
                   "\"canary_len\":32,\"expect\":\"%s\",\"ends\":{\"exit\":0},"
                   "\"checkpoints\":[\"planted\",\"wiped\",\"exit-call\",\"exit\"],\"sole_home\":false,\"needs\":[],"
                   "\"turned_by\":[],\"shows\":[]}\n",
                   i ? ',' : '[', rows[i], rows[i], strcmp(rows[i], "race") ? "leak@wiped" : "clean");
        puts("]");
        return 0;
    }
    if (argc < 3) return 64;
    const char *row = argv[2] + strlen("places/");
    notes = beside("places", "w", path, sizeof path);
    if (read(4, secret, LEN) != LEN) fail();
    int fd = -1;
    if (!strcmp(row, "everywhere")) everywhere(secret);
    else if (!strcmp(row, "sparse")) sparse(secret);
    else if (!strcmp(row, "chequered")) chequered(secret);
    else if (!strcmp(row, "behind")) fd = behind(secret);
    else if (!strcmp(row, "race")) race();
    else if (!strcmp(row, "ymm")) in_thread(in_ymm, secret);
    else if (!strcmp(row, "zmm")) in_thread(in_zmm, secret);
    else if (!strcmp(row, "opmask")) in_thread(in_opmask, secret);
    else if (!strcmp(row, "kernel")) {
        static char copy[LEN];
        memcpy(copy, secret, LEN);
        kernel(secret);
        in_thread(with_own_table, copy);
    }
    announce(0);
    if (!strcmp(row, "race") || !strcmp(row, "kernel")) explicit_bzero(secret, LEN);
    announce(1);
    struct stat now;
    if (!strcmp(row, "kernel") && !untouched()) _exit(9);
    if (fd >= 0 && (fstat(fd, &now) || now.st_blocks > 4096)) _exit(9);
    _exit(0);
}
