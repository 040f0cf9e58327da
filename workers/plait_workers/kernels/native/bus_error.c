// What happens when a mapped page is not there.
//
// A handler in Python would not do: it runs after the faulting instruction is done, and that never is. This
// one looks the address up in a table of maps; if it lies in one, a page of zeros takes the missing page's
// place and the map's count of hits goes up; if not, the handler that was there before is put back, and
// meets the same fault again. A signal handler is global by nature, and so is its table.
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

enum { MAPS = 4096 };

typedef struct { _Atomic uintptr_t start, end; atomic_long hits; } map_row;

static map_row rows[MAPS];
static struct sigaction before;
static uintptr_t page_size;

static void handle(int number, siginfo_t *info, void *context) {
    (void)context;
    uintptr_t address = (uintptr_t)info->si_addr;
    for (int row = 0; row < MAPS; row++) {
        if (address < rows[row].start || address >= rows[row].end) continue;
        void *page = (void *)(address & ~(page_size - 1));
        if (mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) break;
        atomic_fetch_add(&rows[row].hits, 1);
        return;
    }
    sigaction(number, &before, NULL);
}

// Install the handler; 0, or -1 if the system refuses.
EXPORTED int plait_guard_install(void) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, &before);
}

// Guard a map; its row, or -1 if the table is full. Calls of this and of remove may not overlap.
EXPORTED int plait_guard_add(uintptr_t start, size_t size) {
    for (int row = 0; row < MAPS; row++) {
        if (rows[row].end != 0) continue;
        rows[row].hits = 0;
        rows[row].start = start;
        rows[row].end = start + size;
        return row;
    }
    return -1;
}

// How many of a map's pages were missing.
EXPORTED long plait_guard_hits(int row) { return rows[row].hits; }

// Forget a map that is gone.
EXPORTED void plait_guard_remove(int row) {
    rows[row].end = 0;
    rows[row].start = 0;
}
