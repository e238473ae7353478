// The check machine: scheduler, barriers, shuffles, shared memory and the report.
//
// A launch runs its blocks one after the other in shuffled order. The lanes of a block run in rounds: each lane that
// can run does so until it waits or returns, in an order shuffled anew in every round. One thread does it all, so two
// lanes never truly run at once: races are found by shadow.cpp, not by their effect.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "state.hpp"

namespace simt::machine {

Launch launched;
alignas(256) char arena[ARENA];

namespace {

constexpr size_t GAP = 256;                 // between pieces of shared memory
constexpr size_t MOST_SHARED = 227 << 10;   // no device gives a block more
constexpr int MOST_LINES = 20;              // of a report

std::mutex one_launch;
std::string report;
int faults, arrived;
unsigned in_shuffle[LANES / WARP];  // bit by lane
bool abandoned;
std::vector<int> ready;
uint64_t seed, random_state;

uint32_t random_below(uint32_t limit) {  // splitmix64
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return ((z ^ (z >> 31)) >> 32) * limit >> 32;
}

void shuffle_order(std::vector<int>& order) {
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
}

// --- shared memory ---

void* add_piece(const char* file, int line, size_t bytes) {
  char* begin = arena + GAP;
  if (!launched.pieces.empty()) {
    const Piece& last = launched.pieces.back();
    begin = last.begin + (last.bytes + GAP - 1) / GAP * GAP + GAP;
  }
  if (bytes > MOST_SHARED || begin + bytes + GAP > arena + ARENA) return nullptr;
  launched.pieces.push_back({file, line, bytes, begin});
  if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(begin, bytes);
  memset(begin, 0xff, bytes);
  return begin;
}

// --- faults ---

// Where the lanes are, as "lanes 0-31 64 wait at the barrier fit.cu:12; lanes ..."
std::string whereabouts() {
  std::map<std::string, std::string> groups;
  for (int from = 0; from < LANES;) {
    auto state = [](const Lane& lane) {
      if (lane.where == Where::ready) return std::string("are on their way");
      if (lane.where == Where::returned) return std::string("have returned");
      if (lane.where == Where::sync) return text("wait at the barrier %s:%d", lane.file, lane.line);
      return text("wait in the shuffle %s:%d with mask 0x%08x", lane.file, lane.line, lane.mask);
    };
    const std::string here = state(lanes[from]);
    int to = from + 1;
    while (to < LANES && state(lanes[to]) == here) ++to;
    std::string& numbers = groups[here];
    if (numbers.size() < 60)
      numbers += to - from > 1 ? text(" %d-%d", from, to - 1) : text(" %d", from);
    else if (numbers.back() != '.')
      numbers += " ...";
    from = to;
  }
  std::string all;
  for (auto& [state, numbers] : groups) all += (all.empty() ? "lanes" : "; lanes") + numbers + " " + state;
  return all;
}

void stopped_fault(const char* what) {
  fault(text("%s in %s, block %d: ", what, launched.kernel, launched.block) + whereabouts());
}

bool same_site(const Lane& a, const Lane& b) {
  return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file));
}

void wait(Where where, const char* file, int line) {
  current->where = where;
  current->file = file;
  current->line = line;
}

void release(int lane) {
  lanes[lane].where = Where::ready;
  ready.push_back(lane);
}

// --- the scheduler ---

bool run_block(int block) {
  launched.block = block;
  launched.block_epoch = ++launched.epoch;
  launched.starts.push_back({launched.epoch, block});
  for (unsigned& bits : in_shuffle) bits = 0;
  for (const Piece& piece : launched.pieces) memset(piece.begin, 0xff, piece.bytes);  // NaN for float and double
  arrived = 0;
  ready.clear();
  for (int i = 0; i < LANES; ++i) release(i);
  for (std::vector<int> round; !ready.empty(); round.clear()) {
    round.swap(ready);
    shuffle_order(round);
    for (int lane : round) {
      enter(&lanes[lane]);
      if (abandoned) return false;
    }
  }
  bool at_sync = false, at_shuffle = false;
  for (const Lane& lane : lanes) {
    at_sync |= lane.where == Where::sync;
    at_shuffle |= lane.where == Where::shuffle;
  }
  if (at_sync) stopped_fault("divergent barrier");
  if (at_shuffle) stopped_fault("shuffle with a wrong mask");
  return !at_sync && !at_shuffle;
}

}  // namespace

int run(void (*body)(const void*), const void* closure, size_t closure_bytes, const char* name, int first, int last,
        int blocks, size_t shared_bytes) {
  std::lock_guard<std::mutex> lock(one_launch);
  make_stacks();
  report.clear();
  faults = 0;
  abandoned = false;
  random_state = seed;
  launched.kernel = name;
  launched.body = body;
  launched.closure = closure;
  launched.closure_bytes = closure_bytes;
  launched.blocks = blocks;
  launched.launch_epoch = launched.epoch + 1;
  launched.starts.clear();
  launched.pieces.clear();
  if (__asan_poison_memory_region) __asan_poison_memory_region(arena, ARENA);
  if (!add_piece(nullptr, 0, shared_bytes)) {
    fault(text("%s asks for %zu bytes of shared memory", name, shared_bytes));
    return faults;
  }
  std::vector<int> order;
  for (int block = first; block < last; ++block) order.push_back(block);
  shuffle_order(order);
  for (int block : order)
    if (!run_block(block)) break;
  for (Lane& lane : lanes) lane.started &= lane.where == Where::returned;  // the others stand in the midst of a kernel
  return faults;
}

void exchange(unsigned mask, void* value, size_t bytes, int offset, const char* file, int line) {
  const int me = current - lanes, warp = me / WARP, in_warp = me % WARP;
  wait(Where::shuffle, file, line);
  current->mask = mask;
  current->offset = offset;
  current->bytes = bytes;
  memcpy(current->sent, value, bytes);
  unsigned& waiting = in_shuffle[warp];
  waiting |= 1u << in_warp;
  bool right = mask >> in_warp & 1;
  if (right && (waiting & mask) == mask) {  // the last one in
    for (int i = 0; i < WARP; ++i) {
      if (!(mask >> i & 1)) continue;
      Lane& lane = lanes[warp * WARP + i];
      const unsigned partner = i ^ lane.offset;
      right &= lane.mask == mask && lane.bytes == bytes && same_site(lane, *current) && partner < WARP &&
               (mask >> partner & 1);
      if (right) memcpy(lane.received, lanes[warp * WARP + partner].sent, bytes);
    }
    if (right) {
      waiting &= ~mask;
      for (int i = 0; i < WARP; ++i)
        if (mask >> i & 1) release(warp * WARP + i);
    }
  }
  if (!right) {
    stopped_fault("shuffle with a wrong mask");
    abandon();
  }
  leave();
  memcpy(value, current->received, bytes);
}

void fault(const std::string& line) {
  if (++faults <= MOST_LINES) report += line + "\n";
}

void abandon() {
  abandoned = true;
  leave();
  abort();  // nobody comes back to a lane given up
}

std::string text(const char* format, ...) {
  char line[512];
  va_list values;
  va_start(values, format);
  vsnprintf(line, sizeof line, format, values);
  va_end(values);
  return line;
}

}  // namespace simt::machine

namespace simt {

using namespace machine;

int lane() { return current - lanes; }
int block() { return launched.block; }
int blocks() { return launched.blocks; }

void sync(const char* file, int line) {
  wait(Where::sync, file, line);
  if (++arrived == LANES) {
    for (const Lane& lane : lanes) {
      if (same_site(lane, *current)) continue;
      stopped_fault("divergent barrier");
      abandon();
    }
    arrived = 0;
    ++launched.epoch;
      for (int i = 0; i < LANES; ++i) release(i);
  }
  leave();
}

void* shared_memory() { return launched.pieces[0].begin; }

void* shared_static(const char* file, int line, size_t bytes) {
  for (const Piece& piece : launched.pieces)
    if (piece.line == line && piece.bytes == bytes && piece.file && !strcmp(piece.file, file)) return piece.begin;
  if (void* begin = add_piece(file, line, bytes)) return begin;
  fault(text("%s asks for %zu more bytes of shared memory, %s:%d", launched.kernel, bytes, file, line));
  abandon();
}

}  // namespace simt

extern "C" void fieldshot_check_seed(unsigned long long seed) { simt::machine::seed = seed; }
extern "C" const char* fieldshot_check_report() { return simt::machine::report.c_str(); }
