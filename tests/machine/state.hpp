// What the parts of the machine know of each other: fibers.cpp, machine.cpp, shadow.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "machine.hpp"

// There in the memory build only, where AddressSanitizer must know which stack is in use and what is allocated.
extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t bytes);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* saved, const void** bottom, size_t* bytes);
__attribute__((weak)) void __asan_poison_memory_region(const volatile void* begin, size_t bytes);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* begin, size_t bytes);
}

namespace simt::machine {

constexpr size_t STACK = 256 << 10;  // reports of AddressSanitizer are made on the stack of the lane at fault

enum class Where { ready, sync, shuffle, returned };

struct Lane {
  void* resume[5];  // of __builtin_setjmp
  char* stack;
  void* fake_stack;  // AddressSanitizer's
  bool started;
  Where where;
  const char* file;  // where it waits
  int line;
  unsigned mask;
  int offset;
  size_t bytes;
  char sent[16], received[16];
};

// An array in shared memory: pieces[0] is what the launch asked for, the others are SHARED.
struct Piece {
  const char* file;
  int line;
  size_t bytes;
  char* begin;
};

struct Launch {
  const char* kernel;
  void (*body)(const void*);
  const void* closure;
  size_t closure_bytes;
  int block, blocks;
  std::vector<Piece> pieces;
  // Epochs order accesses: `epoch` grows at each barrier and each start of a block, over all launches.
  uint32_t epoch, block_epoch, launch_epoch;
  std::vector<std::pair<uint32_t, int>> starts;  // block_epoch and number of each block so far
};

extern Launch launched;
extern Lane lanes[LANES];
extern Lane* current;  // the lane that runs; null outside of kernels
extern char* stacks;   // of all lanes, one after the other, each behind a page that nobody may touch

constexpr size_t ARENA = 512 << 10, STRIDE = STACK + 4096;
extern char arena[ARENA];  // shared memory with gaps between the pieces

void make_stacks();
void enter(Lane* lane);  // runs it until it waits or returns
void leave();            // from within a lane: it waits

void fault(const std::string& text);
[[noreturn]] void abandon();  // ends the launch from within a lane
std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace simt::machine
