/* How is the world put back after each schedule for the price of a few copied pages?
 *
 * Imports world.h, actors.h. The pages of a frozen world are write-protected. The first store into one ends in a signal
 * handler that copies the page and opens it; it stays open for all later schedules, whose resets copy it back. So after
 * a few schedules there are no signals any more, and a reset costs as much as the pages that schedules change. */
#define _GNU_SOURCE
#include "world.h"

#include "actors.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096u
#define PAGES_MOST 16384u
#define CLASSES 28

static uint8_t *world;
static size_t world_bytes;
static bool frozen;

static struct {
    uint8_t *page;
    uint8_t *copy;
} opened[PAGES_MOST];
static size_t opened_count;

/* Lies at the world's start, so that it is reset with everything else. Freed blocks are handed out again, the last one
 * first: few pages are touched. */
typedef struct heap {
    uint8_t *next;
    void *freed[CLASSES];
} heap;

typedef struct block {
    uint32_t class; /* 0: never handed out again */
    uint32_t bytes;
    void *following; /* of the freed ones */
} block;

static heap *the_heap;

static void give_up(const char *what, const void *at) {
    fprintf(stderr, "%s (address %p)\n%s\n", what, at, actors_story());
    fflush(stderr);
    _exit(1);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    uint8_t *at = info->si_addr;
    if (signal != SIGSEGV || !frozen || at < world || at >= world + world_bytes)
        give_up(signal == SIGSEGV ? "FAILED: a wild access" : "FAILED: a signal ended the run", at);
    uint8_t *page = world + (size_t)(at - world) / PAGE * PAGE;
    if (opened_count == PAGES_MOST)
        give_up("FAILED: schedules change more pages than the harness keeps", at);
    uint8_t *copy = opened[opened_count].copy;
    memcpy(copy, page, PAGE);
    opened[opened_count++].page = page;
    if (mprotect(page, PAGE, PROT_READ | PROT_WRITE) != 0)
        give_up("FAILED: a page cannot be opened", at);
}

void world_begin(void) {
    world_bytes = WORLD_HEAP_BYTES + WORLD_FILES * WORLD_FILE_BYTES;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    uint8_t *wanted = world_file(0) - WORLD_HEAP_BYTES;
    world = mmap(wanted, world_bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, -1, 0);
    uint8_t *copies = mmap(NULL, (size_t)PAGES_MOST * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (world != wanted || copies == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    for (size_t i = 0; i < PAGES_MOST; i++)
        opened[i].copy = copies + i * PAGE;
    the_heap = (heap *)(void *)(world);
    the_heap->next = world + PAGE;
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK, .sa_sigaction = on_fault};
    static uint8_t stack[64 << 10];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
}

void world_freeze(void) {
    /* What the heap has not given out yet holds nothing that a later schedule may rely on. */
    uint8_t *unused = world + ((size_t)(the_heap->next - world) + PAGE - 1) / PAGE * PAGE;
    the_heap->next = unused;
    if (mprotect(world, (size_t)(unused - world), PROT_READ) != 0 ||
        mprotect(world_file(0), WORLD_FILES * WORLD_FILE_BYTES, PROT_READ) != 0) {
        perror("mprotect");
        exit(2);
    }
    frozen = true;
}

void world_reset(void) {
    for (size_t i = 0; i < opened_count; i++)
        memcpy(opened[i].page, opened[i].copy, PAGE);
}

size_t world_pages(void) { return opened_count; }

static unsigned class_of(size_t bytes) {
    unsigned class = 5;
    while (((size_t)1 << class) < bytes)
        class++;
    return class;
}

void *world_malloc(size_t bytes) {
    unsigned class = class_of(bytes + sizeof(block));
    block *found = class < CLASSES ? the_heap->freed[class] : NULL;
    if (found != NULL) {
        the_heap->freed[class] = found->following;
        return found + 1;
    }
    /* A large block is not rounded up to a power of two: a heap of what is never touched costs nothing, one of large
     * steps would end early. */
    size_t room = (bytes + sizeof(block) + 15) / 16 * 16;
    if (class <= 12)
        room = (size_t)1 << class;
    if (class >= CLASSES || room > (size_t)(world + WORLD_HEAP_BYTES - the_heap->next))
        return NULL;
    found = (block *)(void *)the_heap->next;
    the_heap->next += room;
    found->class = class <= 12 ? class : 0;
    found->bytes = (uint32_t)(room - sizeof *found);
    return found + 1;
}

void world_free(void *old) {
    block *freed = old == NULL ? NULL : (block *)old - 1;
    if (freed == NULL || freed->class == 0)
        return;
    freed->following = the_heap->freed[freed->class];
    the_heap->freed[freed->class] = freed;
}

void *world_realloc(void *old, size_t bytes) {
    void *grown = world_malloc(bytes);
    if (old == NULL || grown == NULL)
        return grown;
    uint32_t had = ((const block *)old - 1)->bytes;
    memcpy(grown, old, had < bytes ? had : bytes);
    world_free(old);
    return grown;
}

void *world_new(size_t bytes) {
    void *fresh = world_malloc(bytes);
    if (fresh == NULL) {
        fprintf(stderr, "the world is too small for %zu bytes more\n", bytes);
        exit(2);
    }
    return memset(fresh, 0, bytes);
}
