/* Puts a secret into many places and holds it there.
 *
 * victim list        prints the rows
 * victim run NAME    plants, announces `planted` and `wiped`, ends with 0 (or 9: the look changed something)
 *
 * Writes the address of each copy, by name, into the file `places` beside itself. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <immintrin.h>
#include <pthread.h>
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
        int ends[2], pair[2];
        if (pipe(ends) || write(ends[1], secret, LEN) != LEN) fail();
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || write(pair[0], secret, LEN) != LEN) fail();
        int file = memfd_create("kept", 0);
        if (file < 0 || pwrite(file, secret, LEN, 10000) != LEN) fail();
    }
    announce(0);
    if (!strcmp(row, "race") || !strcmp(row, "kernel")) explicit_bzero(secret, LEN);
    announce(1);
    struct stat now;
    if (fd >= 0 && (fstat(fd, &now) || now.st_blocks > 4096)) _exit(9);
    _exit(0);
}
