// The race and bounds shadow. Kernels of the race build are compiled with -fsanitize=thread, which calls __tsan_...
// before each access to memory; here these calls go to a shadow of our own instead of libtsan.
//
// A race: two lanes of a block touch a word, at least one writes, not both atomically, and no barrier comes between
// (nor, in one warp, a shuffle); or two blocks of a launch do so in global memory. A word is 4 bytes; of a smaller
// access the shadow knows the bytes.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>
#include <unordered_map>

#include "state.hpp"

extern "C" const char __ehdr_start __attribute__((visibility("hidden")));  // the ends of this library in memory
extern "C" const char _end __attribute__((visibility("hidden")));

namespace simt::machine {
namespace {

enum Kind { READ, WRITE, ATOMIC };

struct Access {
  uint32_t epoch;  // 0: none
  uint8_t lane, bytes;  // bytes: bit by byte
  bool operator==(Access o) const {
    return epoch == o.epoch && lane == o.lane && bytes == o.bytes;
  }
};

// Of the accesses of a kind: enough to tell for any later access whether one of them was by somebody else.
struct Trace {
  Access last, other;  // `other` by another lane, of another warp if there was one
  Access before;       // by a block before that of `last`
};

struct Word {
  Access write;
  Trace reads, atomics;
};

constexpr uintptr_t WORD = 4, PAGE = 64 << 10;
constexpr size_t MOST_PAGES = 128;

struct Free {
  void operator()(Word* page) const { free(page); }
};
std::unordered_map<uintptr_t, std::unique_ptr<Word, Free>> pages;
uintptr_t cached_number = ~(uintptr_t)0;
Word* cached_page;
uint32_t known_launch;                                  // epoch of the launch that the next two are about
std::set<std::pair<uintptr_t, int>> seen;               // (code, conflict): a loop with a race is one fault
std::vector<std::pair<uintptr_t, uintptr_t>> regions;  // begin, end
size_t last_region;

Word* word_at(uintptr_t address) {
  const uintptr_t number = address / PAGE;
  if (number != cached_number) {
    auto& page = pages[number];
    if (!page) page.reset((Word*)calloc(PAGE / WORD, sizeof(Word)));  // zero, and not in memory until touched
    if (!page) abort();
    cached_number = number;
    cached_page = page.get();
  }
  return cached_page + address % PAGE / WORD;
}

void new_launch() {
  known_launch = launched.launch_epoch;
  seen.clear();
  if (pages.size() <= MOST_PAGES) return;
  pages.clear();
  cached_number = ~(uintptr_t)0;
}

bool within(uintptr_t address, size_t bytes, const void* begin, size_t size) {
  return address - (uintptr_t)begin < size && address + bytes <= (uintptr_t)begin + size;
}

// --- reports ---

std::string place(uintptr_t address) {
  const bool shared = within(address, 1, arena, ARENA);
  uintptr_t best = 0, size = 0;
  std::string name;
  auto nearest = [&](uintptr_t begin, size_t bytes, const std::string& called) {
    if (begin <= address && begin >= best) best = begin, size = bytes, name = called;
  };
  if (shared) {
    nearest((uintptr_t)arena, 0, "the start of all shared memory");
    for (const Piece& piece : launched.pieces)
      nearest((uintptr_t)piece.begin, piece.bytes,
              piece.file ? text("shared array %s:%d", piece.file, piece.line) : "shared memory");
  } else {
    for (size_t i = 0; i < regions.size(); ++i)
      nearest(regions[i].first, regions[i].second - regions[i].first, text("region %zu", i));
  }
  if (name.empty() || (!shared && address - best > 2 * size + 4096)) return text("address 0x%zx", address);
  return name + text(" + 0x%zx (of 0x%zx bytes)", address - best, size);
}

int block_of(Access access) {
  int block = -1;
  for (auto [epoch, number] : launched.starts)
    if (epoch <= access.epoch) block = number;
  return block;
}

std::string here(uintptr_t code) { return text(" [code +0x%zx]", code - (uintptr_t)&__ehdr_start); }

const char* const VERB[] = {"reads", "writes", "updates atomically"};
const char* const PAST[] = {"read", "wrote", "updated atomically"};

void race(uintptr_t address, Kind kind, Kind earlier, Access access, uintptr_t code) {
  if (!seen.insert({code, earlier}).second) return;
  const int before = block_of(access);
  const std::string other = before == launched.block ? "" : text(" of block %d", before);
  const char* missing = before == launched.block ? "with no barrier between" : "in the same launch";
  fault(text("race in %s, block %d: lane %d %s what lane %d", launched.kernel, launched.block, lane(), VERB[kind],
             access.lane) +
        other + text(" %s, %s, at ", PAST[earlier], missing) + place(address) + here(code));
}

[[noreturn]] __attribute__((noinline)) void out_of_bounds(uintptr_t address, size_t bytes, Kind kind, uintptr_t code) {
  std::string at = place(address);
  if (within(address, 1, stacks, STRIDE * LANES))
    at = text("the stack of lane %d", (int)((address - (uintptr_t)stacks) / STRIDE));
  fault(text("out of bounds in %s, block %d: lane %d %s %zu bytes at ", launched.kernel, launched.block, lane(),
             VERB[kind], bytes) +
        at + here(code));
  abandon();  // before the access does harm
}

// --- the shadow of one word ---

// Whether `access` is of this launch and nothing orders it before what the current lane does now.
inline bool unordered(Access access, uint8_t bytes, bool shared) {
  if (access.epoch < launched.launch_epoch || !(access.bytes & bytes)) return false;
  if (access.epoch < launched.block_epoch) return !shared;
  if (access.epoch < launched.epoch) return false;
  return access.lane != lane();
}

inline void remember(Trace& trace, Access now) {
  Access &last = trace.last, &other = trace.other;
  if (last.epoch < launched.block_epoch) {
    if (last.epoch >= launched.launch_epoch) trace.before = last;
    other = {};
  } else if (last.epoch < launched.epoch) {
    other = {};
  } else if (last.lane != now.lane) {
    other = last;
  }
  if (last.epoch == now.epoch && last.lane == now.lane) now.bytes |= last.bytes;
  last = now;
}

inline void check(const Trace& trace, uint8_t bytes, uintptr_t address, Kind kind, Kind earlier, bool shared,
                  uintptr_t code) {
  for (const Access& access : {trace.last, trace.other, trace.before})
    if (unordered(access, bytes, shared)) return race(address, kind, earlier, access, code);
}

inline void touch(uintptr_t address, uint8_t bytes, Kind kind, bool shared, uintptr_t code) {
  Word& word = *word_at(address);
  const Access now = {launched.epoch, (uint8_t)lane(), bytes};
  if (kind == READ ? word.reads.last == now : kind == WRITE && word.write == now) return;  // the same again
  if (unordered(word.write, bytes, shared)) race(address, kind, WRITE, word.write, code);
  if (kind != READ) check(word.reads, bytes, address, kind, READ, shared, code);
  if (kind != ATOMIC) check(word.atomics, bytes, address, kind, ATOMIC, shared, code);
  if (kind == WRITE) word.write = now;
  if (kind == READ) remember(word.reads, now);
  if (kind == ATOMIC) remember(word.atomics, now);
}

// What needs no shadow: the closure, which holds the parameters, and the library's constants.
bool constant(uintptr_t address, size_t bytes) {
  return within(address, bytes, launched.closure, launched.closure_bytes) ||
         within(address, bytes, &__ehdr_start, &_end - &__ehdr_start);
}

bool in_region(uintptr_t address, size_t bytes) {
  auto holds = [&](const std::pair<uintptr_t, uintptr_t>& region) {
    return address >= region.first && address + bytes <= region.second;
  };
  if (last_region < regions.size() && holds(regions[last_region])) return true;
  for (last_region = 0; last_region < regions.size(); ++last_region)
    if (holds(regions[last_region])) return true;
  return false;
}

void access(const volatile void* pointer, size_t bytes, Kind kind, const void* return_address) {
  if (!current || !bytes) return;
  const uintptr_t address = (uintptr_t)pointer, code = (uintptr_t)return_address - 1;
  if (within(address, bytes, current->stack, STACK)) return;
  if (known_launch != launched.launch_epoch) new_launch();
  const bool shared = within(address, 1, arena, ARENA);
  if (shared) {
    bool inside = false;
    for (const Piece& piece : launched.pieces) inside |= within(address, bytes, piece.begin, piece.bytes);
    if (!inside) out_of_bounds(address, bytes, kind, code);
  } else if (within(address, 1, stacks, STRIDE * LANES)) {
    out_of_bounds(address, bytes, kind, code);
  } else if (!in_region(address, bytes)) {
    if (kind == READ && constant(address, bytes)) return;
    if (!regions.empty()) out_of_bounds(address, bytes, kind, code);
  }
  for (uintptr_t at = address, end = address + bytes; at < end;) {
    const uintptr_t next = std::min((at / WORD + 1) * WORD, end), first = at % WORD;
    touch(at, (uint8_t)((1u << (first + next - at)) - (1u << first)), kind, shared, code);
    at = next;
  }
}

}  // namespace
}  // namespace simt::machine

using namespace simt::machine;

extern "C" {

void fieldshot_check_region(const void* begin, size_t bytes) {
  regions.push_back({(uintptr_t)begin, (uintptr_t)begin + bytes});
}
void fieldshot_check_regions_clear() { regions.clear(); }

#define CODE __builtin_return_address(0)

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void** at, void*) { access(at, sizeof *at, WRITE, CODE); }
void __tsan_vptr_read(void** at) { access(at, sizeof *at, READ, CODE); }
void __tsan_read_range(void* at, size_t bytes) { access(at, bytes, READ, CODE); }
void __tsan_write_range(void* at, size_t bytes) { access(at, bytes, WRITE, CODE); }

#define PLAIN(bytes)                                                                  \
  void __tsan_read##bytes(void* at) { access(at, bytes, READ, CODE); }                \
  void __tsan_write##bytes(void* at) { access(at, bytes, WRITE, CODE); }              \
  void __tsan_unaligned_read##bytes(void* at) { access(at, bytes, READ, CODE); }      \
  void __tsan_unaligned_write##bytes(void* at) { access(at, bytes, WRITE, CODE); }
PLAIN(1) PLAIN(2) PLAIN(4) PLAIN(8) PLAIN(16)

// An atomic load counts as an update: it is as sound beside other atomics, and as unsound beside a plain write.
#define UPDATE(T, bits, name)                                            \
  T __tsan_atomic##bits##_##name(volatile T* at, T value, int) {         \
    access(at, sizeof *at, ATOMIC, CODE);                                \
    return __atomic_##name(at, value, __ATOMIC_SEQ_CST);                 \
  }
#define EXCHANGE(T, bits, name)                                                                   \
  int __tsan_atomic##bits##_##name(volatile T* at, T* expected, T value, int, int) {              \
    access(at, sizeof *at, ATOMIC, CODE);                                                         \
    return __atomic_compare_exchange_n(at, expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }
#define ATOMICS(T, bits)                                                 \
  T __tsan_atomic##bits##_load(const volatile T* at, int) {              \
    access(at, sizeof *at, ATOMIC, CODE);                                \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                        \
  }                                                                      \
  void __tsan_atomic##bits##_store(volatile T* at, T value, int) {       \
    access(at, sizeof *at, ATOMIC, CODE);                                \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                       \
  }                                                                      \
  T __tsan_atomic##bits##_exchange(volatile T* at, T value, int) {       \
    access(at, sizeof *at, ATOMIC, CODE);                                \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);             \
  }                                                                      \
  UPDATE(T, bits, fetch_add) UPDATE(T, bits, fetch_sub) UPDATE(T, bits, fetch_and) UPDATE(T, bits, fetch_or) \
  UPDATE(T, bits, fetch_xor) UPDATE(T, bits, fetch_nand)                 \
  EXCHANGE(T, bits, compare_exchange_strong) EXCHANGE(T, bits, compare_exchange_weak)
ATOMICS(uint8_t, 8) ATOMICS(uint16_t, 16) ATOMICS(uint32_t, 32) ATOMICS(uint64_t, 64)

void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

// Calls that kernels make or the compiler makes of a copied struct: the race build links them to these.
void* __wrap_memcpy(void* to, const void* from, size_t bytes) {
  access(from, bytes, READ, CODE);
  access(to, bytes, WRITE, CODE);
  return __builtin_memcpy(to, from, bytes);
}
void* __wrap_memmove(void* to, const void* from, size_t bytes) {
  access(from, bytes, READ, CODE);
  access(to, bytes, WRITE, CODE);
  return __builtin_memmove(to, from, bytes);
}
void* __wrap_memset(void* to, int value, size_t bytes) {
  access(to, bytes, WRITE, CODE);
  return __builtin_memset(to, value, bytes);
}

}  // extern "C"
